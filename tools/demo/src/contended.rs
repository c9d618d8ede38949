//! The daemon under a quota of processor time, and on one core with its client: does polling make latency worse (rule A13)?
//!
//! Each policy is measured in turns with polling switched off. It may not raise the 99th percentile of latency by more than a tenth.

use std::path::Path;
use std::time::Duration;

use aio_context::Policy;
use aio_tools::cores::{self, Cores};
use aio_tools::interrupt::Interrupt;
use aio_tools::report::{median, range};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::client::{Client, Waits};
use crate::measure::settle;
use crate::plan::Load;
use crate::quota::Quota;
use crate::server::{BLOCKD, Kind, Polling, Program, Server};

/// The quota, in percent of a core.
const QUOTA: u32 = 20;
/// The highest 99th percentile, over the one without polling.
const MOST: f64 = 1.1;
const THINK: Duration = Duration::from_micros(10);

/// What the daemon has to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    /// It may run for a fifth of the time.
    Quota,
    /// Its client runs on its core.
    OneCore,
}

impl Situation {
    fn name(self) -> String {
        match self {
            Self::Quota => format!("quota of {QUOTA} %"),
            Self::OneCore => "one core".to_owned(),
        }
    }

    fn loads(self) -> Vec<Load> {
        match self {
            Self::Quota => vec![Load::Poisson(2000), Load::Poisson(20_000)],
            Self::OneCore => [1, 4]
                .map(|depth| Load::Closed {
                    depth,
                    waits: Waits::ForEvents,
                    think: THINK,
                })
                .into(),
        }
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    server: &'static str,
    situation: String,
    polling: &'static str,
    client: String,
    queue_depth: usize,
    round: usize,
    iops: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    server_cpu_pct: f64,
    verified: bool,
}

impl Row {
    fn is_like(&self, other: &Self) -> bool {
        (&self.situation, &self.client, self.queue_depth)
            == (&other.situation, &other.client, other.queue_depth)
    }
}

/// Polling off, and each policy that a user may choose.
fn pollings() -> Vec<Polling> {
    let policies = Policy::NAMES.iter().filter(|name| **name != "never");
    [Polling::Off]
        .into_iter()
        .chain(policies.map(|name| Polling::Policy(name)))
        .collect()
}

/// Measures all policies in turns. A situation that cannot be made is skipped with a line.
pub(crate) fn measure(
    blockd: &Path,
    cores: Option<Cores>,
    (rounds, time): (usize, Duration),
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let quota = Quota::make(QUOTA);
    if let Err(why) = &quota {
        println!("skipped: {}: {why:#}", Situation::Quota.name());
    }
    let mut servers = Vec::new();
    for polling in pollings() {
        let kind = Kind {
            program: Program::Blockd,
            polling,
        };
        let free = Server::start(kind, blockd, 0, cores)?;
        let limited = match &quota {
            Ok(quota) => {
                let server = Server::start(kind, blockd, 0, cores)?;
                quota.add(server.id())?;
                Some(server)
            }
            Err(_) => None,
        };
        for server in [Some(&free), limited.as_ref()].into_iter().flatten() {
            Client::connect(&server.socket(), server.contents(), Waits::Spinning)?.fill()?;
        }
        servers.push((free, limited));
    }
    let mut rows = Vec::new();
    let progress = ProgressBar::new((rounds * 4 * servers.len()) as u64);
    for round in 0..rounds {
        for situation in [Situation::Quota, Situation::OneCore] {
            for load in situation.loads() {
                for (free, limited) in &servers {
                    progress.inc(1);
                    interrupt.check()?;
                    let server = match situation {
                        Situation::OneCore => free,
                        Situation::Quota => match limited {
                            Some(limited) => limited,
                            None => continue,
                        },
                    };
                    settle(|| {
                        let all = servers
                            .iter()
                            .flat_map(|(free, limited)| [Some(free), limited.as_ref()]);
                        all.flatten().map(Server::cpu_time).sum()
                    })?;
                    let core = cores.map(|cores| match situation {
                        Situation::OneCore => cores.server,
                        Situation::Quota => cores.client,
                    });
                    rows.push(one_run(server, situation, load, core, (round, time))?);
                    if let Some(cores) = cores {
                        cores::pin(cores.client);
                    }
                }
            }
        }
    }
    progress.finish_and_clear();
    drop(servers);
    Ok(rows)
}

fn one_run(
    server: &Server,
    situation: Situation,
    load: Load,
    core: Option<usize>,
    (round, time): (usize, Duration),
) -> anyhow::Result<Row> {
    if let Some(core) = core {
        cores::pin(core);
    }
    let mut client = Client::connect(&server.socket(), server.contents(), load.waits())?;
    load.run(&mut client, time / 4)?;
    let ran = server.cpu_time()?;
    let measured = load.run(&mut client, time)?;
    let ran = server.cpu_time()? - ran;
    let micros = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Row {
        server: BLOCKD,
        situation: situation.name(),
        polling: server.kind().polling.name(),
        client: load.client(),
        queue_depth: load.depth(),
        round,
        iops: measured.requests as f64 / measured.elapsed.as_secs_f64(),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        p999_us: micros(0.999),
        server_cpu_pct: 100.0 * ran.as_secs_f64() / measured.elapsed.as_secs_f64(),
        verified: true,
    })
}

/// Prints a table for each load, and which policies raise the latency.
pub(crate) fn print(rows: &[Row]) {
    let mut loads: Vec<&Row> = Vec::new();
    for row in rows {
        if !loads.iter().any(|load| load.is_like(row)) {
            loads.push(row);
        }
    }
    for load in loads {
        println!(
            "\n{}, {} client, depth {}",
            load.situation, load.client, load.queue_depth
        );
        for polling in pollings().into_iter().map(Polling::name) {
            let runs: Vec<&Row> = rows
                .iter()
                .filter(|row| row.is_like(load) && row.polling == polling)
                .collect();
            let of =
                |figure: fn(&Row) -> f64| median(&runs.iter().map(|row| figure(row)).collect::<Vec<f64>>());
            let ratios = over_off(rows, &runs);
            let (low, high) = range(&ratios);
            let verdict = if median(&ratios) <= MOST { "" } else { "  missed" };
            println!(
                "  {polling:<14} p50 {:>8.1} us   p99 {:>9.1} us   p99.9 {:>9.1} us   CPU {:>3.0} %   p99 over off {:>5.2} \
                 [{low:.2} - {high:.2}]{verdict}",
                of(|row| row.p50_us),
                of(|row| row.p99_us),
                of(|row| row.p999_us),
                of(|row| row.server_cpu_pct),
                median(&ratios),
            );
        }
    }
    println!("\nGoal: the 99th percentile at most {MOST} times the one without polling");
}

/// The 99th percentile over the one without polling, round by round.
fn over_off(rows: &[Row], runs: &[&Row]) -> Vec<f64> {
    let off = |run: &Row| {
        let is_it =
            |row: &&Row| row.is_like(run) && row.round == run.round && row.polling == Polling::Off.name();
        rows.iter().find(is_it).map(|off| run.p99_us / off.p99_us)
    };
    runs.iter().filter_map(|run| off(run)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a13_each_policy_is_compared_with_polling_off_in_the_same_round() {
        let row = |polling: Polling, round, p99_us| Row {
            server: BLOCKD,
            situation: Situation::OneCore.name(),
            polling: polling.name(),
            client: "event".to_owned(),
            queue_depth: 1,
            round,
            iops: 1.0,
            p50_us: 1.0,
            p99_us,
            p999_us: 2.0,
            server_cpu_pct: 1.0,
            verified: true,
        };
        let always = Polling::Policy("always");
        let rows = [
            row(Polling::Off, 0, 10.0),
            row(always, 0, 20.0),
            row(Polling::Off, 1, 40.0),
            row(always, 1, 20.0),
            row(always, 2, 1.0),
        ];
        let runs: Vec<&Row> = rows.iter().filter(|row| row.polling == "always").collect();
        assert_eq!(over_off(&rows, &runs), [2.0, 0.5]);
        assert!(pollings().contains(&always) && pollings().len() == Policy::NAMES.len());
    }
}
