//! The plan of a measurement: servers, loads, rounds, and the time of each run.

use std::time::Duration;

use aio_tools::cores::Cores;

use crate::args::{Args, has_all};
use crate::client::{Client, Measured, Waits};
use crate::server::{self, Kind, Polling, Program};

/// The planned time of all runs. The whole measurement after the build takes three to four minutes, with --quick
/// one.
const TIME: Duration = Duration::from_secs(165);
const QUICK_TIME: Duration = Duration::from_secs(52);
/// The time of all runs of the grid.
const GRID_TIME: Duration = Duration::from_secs(420);
/// The longest and the shortest time of a run.
const LONGEST_RUN: Duration = Duration::from_millis(500);
const SHORTEST_RUN: Duration = Duration::from_millis(60);
/// The shares of a run's time for warming up and for measuring. The rest is for connecting, and for waiting
/// until the daemons sleep again.
const WARM_UP_SHARE: f64 = 0.17;
const RUN_SHARE: f64 = 0.6;
/// The rates of the open-loop client, in requests a second.
const RATES: [u32; 4] = [1000, 10_000, 50_000, 200_000];

/// The requests of the busy client in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// `depth` requests are under way all the time.
    Closed {
        depth: usize,
        waits: Waits,
        /// The time that the client computes before each request that follows a completion.
        think: Duration,
    },
    /// This number of requests a second, at random moments, independent of the server.
    Poisson(u32),
}

impl Load {
    pub(crate) fn depth(self) -> usize {
        match self {
            Self::Closed { depth, .. } => depth,
            Self::Poisson(_) => 1,
        }
    }

    pub(crate) fn client(self) -> String {
        match self {
            Self::Closed { waits, .. } => waits.name().to_owned(),
            Self::Poisson(rate) => format!("poisson-{rate}"),
        }
    }

    pub(crate) fn waits(self) -> Waits {
        match self {
            Self::Closed { waits, .. } => waits,
            Self::Poisson(_) => Waits::Spinning,
        }
    }

    pub(crate) fn think(self) -> Duration {
        match self {
            Self::Closed { think, .. } => think,
            Self::Poisson(_) => Duration::ZERO,
        }
    }

    pub(crate) fn run(self, client: &mut Client, time: Duration) -> anyhow::Result<Measured> {
        match self {
            Self::Closed { depth, think, .. } => client.run(depth, think, time),
            Self::Poisson(rate) => client.run_poisson(f64::from(rate), time),
        }
    }
}

/// Returns the description of a run.
pub(crate) fn describe(kind: Kind, load: Load, idle: usize) -> String {
    let think = match load.think() {
        Duration::ZERO => String::new(),
        think => format!(", thinks {think:?}"),
    };
    format!(
        "{}, polling {}, {idle} idle queues, depth {}, {} client{think}",
        kind.program.name(),
        kind.polling.name(),
        load.depth(),
        load.client()
    )
}

pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// `true` if the number of rounds was given. Then the time does not limit it.
    rounds_are_fixed: bool,
    /// The time that everything after the build may take.
    pub(crate) time: Duration,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) cores: Option<Cores>,
    idle: Vec<usize>,
    depths: Vec<usize>,
    thinks: Vec<Duration>,
    is_grid: bool,
    only: Vec<String>,
}

/// The times of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
}

impl Plan {
    pub(crate) fn new(args: &Args, cores: Option<Cores>) -> Self {
        let has_peer = server::peer_is_installed();
        if !has_peer {
            println!("qemu-storage-daemon is not installed: blockd is measured alone");
        }
        if cores.is_none() {
            println!("only one core: client and server share it, and figures mean little");
        }
        Self::of(args, cores, has_peer)
    }

    fn of(args: &Args, cores: Option<Cores>, has_peer: bool) -> Self {
        let kind = |program, polling| Kind { program, polling };
        let mut kinds = vec![
            kind(Program::Blockd, Polling::Off),
            kind(Program::Blockd, Polling::Adaptive),
        ];
        if has_peer {
            kinds.push(kind(Program::Peer, Polling::Off));
        }
        // Polling makes no difference to the peer's exports, so the grid has the peer only once.
        if has_peer && !args.grid {
            kinds.extend([
                kind(Program::Peer, Polling::Adaptive),
                kind(Program::PeerNull, Polling::Off),
            ]);
        }
        kinds.push(kind(Program::Blockd, Polling::Always));
        kinds.extend([Polling::Off, Polling::Always].map(|polling| kind(Program::Floor, polling)));
        let (rounds, time) = match (args.quick, args.grid) {
            (true, _) => (2, QUICK_TIME),
            (false, true) => (7, GRID_TIME),
            (false, false) => (5, TIME),
        };
        Self {
            rounds: args.rounds.unwrap_or(rounds),
            rounds_are_fixed: args.rounds.is_some(),
            time,
            kinds,
            cores,
            idle: if args.grid { vec![0] } else { args.idle.clone() },
            depths: args.depth.clone(),
            is_grid: args.grid,
            thinks: args
                .think_us()
                .iter()
                .map(|micros| Duration::from_secs_f64(micros / 1e6))
                .collect(),
            only: args.only.clone(),
        }
    }

    pub(crate) fn idle(&self) -> &[usize] {
        &self.idle
    }

    /// Returns the number of runs of a round.
    pub(crate) fn runs_of_a_round(&self) -> usize {
        self.idle.iter().map(|idle| self.runs(*idle).len()).sum()
    }

    /// Returns the time of each run, if `passed` has passed already.
    pub(crate) fn pace(&self, passed: Duration) -> Pace {
        let runs = (self.runs_of_a_round() * self.rounds).max(1);
        let each = self.time.saturating_sub(passed).div_f64(runs as f64);
        let time = each.mul_f64(RUN_SHARE).clamp(SHORTEST_RUN, LONGEST_RUN);
        Pace {
            warm_up: time.mul_f64(WARM_UP_SHARE / RUN_SHARE),
            time,
        }
    }

    /// Returns `true` if another round, as long as the longest one, would take too long.
    pub(crate) fn is_over(&self, passed: Duration, longest_round: Duration) -> bool {
        !self.rounds_are_fixed && passed + longest_round > self.time
    }

    /// Returns the runs of a round with `idle` idle queues, in order: all servers at one load, then at the
    /// next.
    pub(crate) fn runs(&self, idle: usize) -> Vec<(Load, Kind)> {
        let mut runs: Vec<(Load, Kind)> = Vec::new();
        for kind in &self.kinds {
            for load in self.loads(idle, *kind) {
                let description = describe(*kind, load, idle);
                if has_all(&description, &self.only) {
                    let after = runs.iter().rposition(|(other, _)| *other == load);
                    runs.insert(after.map_or(runs.len(), |at| at + 1), (load, *kind));
                }
            }
        }
        runs
    }

    /// Returns the loads of a server with `idle` idle queues. Further depths and think times, the null disk,
    /// the floor, and the open loop, which tests our polling policies, are measured only without idle queues.
    fn loads(&self, idle: usize, kind: Kind) -> Vec<Load> {
        let mut loads = Vec::new();
        let all_or_first = if idle == 0 { usize::MAX } else { 1 };
        let is_bound = kind.program == Program::PeerNull || kind.program == Program::Floor;
        let is_closed = (self.is_grid || kind.polling != Polling::Always || kind.program == Program::Floor)
            && (idle == 0 || !is_bound);
        let depths = self.depths.iter().copied().take(all_or_first);
        for depth in depths.filter(|_| is_closed) {
            for think in self.thinks.iter().copied().take(all_or_first) {
                loads.extend([Waits::Spinning, Waits::ForEvents].map(|waits| Load::Closed {
                    depth,
                    waits,
                    think,
                }));
            }
        }
        if idle == 0 && kind.program == Program::Blockd && !self.is_grid {
            loads.extend(RATES.map(Load::Poisson));
        }
        loads
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn plan(args: &[&str]) -> Plan {
        let args = Args::try_parse_from([&["demo"], args].concat()).unwrap();
        Plan::of(&args, None, true)
    }

    #[test]
    fn all_servers_do_a_load_before_the_next_one() {
        let plan = plan(&["--only", "depth 32,spin", "--think-us", "0"]);
        let runs = plan.runs(0);
        assert_eq!(
            runs.len(),
            7,
            "blockd twice, the peer twice, its null disk, the floor twice"
        );
        assert!(runs.iter().all(|(load, _)| *load == runs[0].0));
        assert_eq!(plan.runs(64), []);
    }

    #[test]
    fn the_time_of_a_run_fits_the_remaining_time() {
        let plan = plan(&[]);
        let runs = plan.runs_of_a_round() * plan.rounds;
        let pace = plan.pace(Duration::from_secs(20));
        assert!((pace.time + pace.warm_up) * (runs as u32) < plan.time);
        assert_eq!(plan.pace(plan.time).time, SHORTEST_RUN);
        assert!(plan.is_over(Duration::from_secs(150), Duration::from_secs(30)));
        assert!(!plan.is_over(Duration::from_secs(100), Duration::from_secs(30)));
        let fixed = self::plan(&["--rounds", "7"]);
        assert!(!fixed.is_over(Duration::from_secs(1000), Duration::from_secs(30)));
    }

    #[test]
    fn thinking_and_depths_are_measured_without_idle_queues() {
        let plan = plan(&["--think-us", "0,2.5", "--depth", "1,4,32"]);
        let closed = |idle| {
            let blockd = plan.kinds[0];
            plan.loads(idle, blockd)
                .into_iter()
                .filter(|load| matches!(load, Load::Closed { .. }))
                .count()
        };
        assert_eq!((closed(0), closed(64)), (12, 2));
    }

    #[test]
    fn the_grid_has_thirty_loads_for_each_server_and_no_idle_queues() {
        let plan = plan(&["--grid"]);
        assert_eq!(plan.idle(), [0]);
        assert_eq!(
            (plan.rounds, plan.runs_of_a_round()),
            (7, 6 * 30),
            "blockd off, adaptive, always; the peer; the floor that sleeps, and the one that spins"
        );
        assert_eq!(self::plan(&["--grid", "--quick"]).runs_of_a_round(), 6 * 12);
    }
}
