//! The simulator's prediction for each load of the grid, beside the measurement: the sign of polling.
//!
//! [`ClosedLoop`] simulates a client and a server at the prices of this machine. Most prices come from the
//! measurement itself, so that it tests the model and not the guesses: the time of a request in the server
//! and in the client, and the time of a kick. A sleep is measured as blockd does at its start, and once more
//! with a waker that slept, too.

use std::time::Duration;

use aio_context::WakeCost;
use aio_notify::SleepMeter;
use aio_replay::{ClosedLoop, ClosedOutcome, Deciding};
use aio_sources::WakeCalibration;
use aio_tools::report::{median, range};

use crate::row::{Cell, Row, ratios_of};
use crate::server::{BLOCKD, FLOOR};

const REQUESTS: u64 = 100_000;
const SEED: u64 = 14;
/// Costs that differ by less are level. Measured costs are also level if the sign differs between rounds.
const LEVEL: f64 = 0.05;
/// The number of batches of sleeps.
const BATCHES: usize = 8;
/// The kinds of polling that adaptive is compared with.
const AGAINST: [&str; 2] = ["off", "always"];

/// Prices of the machine, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Prices {
    /// The time of a request without waiting, in the server and in the client.
    service_ns: u64,
    client_ns: u64,
    sleep: Sleeps,
}

/// The costs of sleeps on this machine, measured separately.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sleeps {
    wake: WakeCost,
    /// The additional latency of a wake-up if the waker slept, too.
    both_asleep: Duration,
    /// The cost of a system call that wakes no thread.
    idle_write: Duration,
}

impl Sleeps {
    /// Measures the costs. If there is no calibration, it uses the assumed ones.
    fn measure() -> Self {
        let wake = WakeCalibration::start().map_or(WakeCost::ASSUMED, |calibration| calibration.cost());
        let mut meter = SleepMeter::new();
        let (mut both, mut writes) = (Vec::new(), Vec::new());
        for _ in 0..BATCHES {
            if let Ok(Some(cost)) = meter.measure_both_asleep() {
                both.push(cost.latency);
                writes.push(cost.idle_write);
            }
        }
        // The second smallest value, as for a sleep.
        let low = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times.get(1).copied()
        };
        Self {
            wake,
            both_asleep: low(both).unwrap_or(wake.latency).saturating_sub(wake.latency),
            idle_write: low(writes).unwrap_or_default(),
        }
    }
}

impl Prices {
    /// Computes the prices from the runs that always poll. At the greatest depth the slower side limits the
    /// rate; with one request at a time both sides take turns. Returns `None` without those runs.
    fn of(rows: &[Row], sleep: Sleeps) -> Option<Self> {
        let busy = |row: &&Row| row.server == BLOCKD && row.polling == "always" && row.client == "spin";
        let period_ns = |depth: usize| {
            let of_depth = rows
                .iter()
                .filter(busy)
                .filter(|row| row.queue_depth == depth && row.think_us == 0.0);
            let periods: Vec<f64> = of_depth.map(|row| 1e9 / row.iops).collect();
            (!periods.is_empty()).then(|| median(&periods))
        };
        let depths = rows.iter().filter(busy).map(|row| row.queue_depth);
        let (alone, deepest) = (period_ns(1)?, period_ns(depths.max()?)?);
        // Kicks that wake a thread: those of a client with one request under way to a server that sleeps at
        // once.
        let kicks: Vec<f64> = rows
            .iter()
            .filter(|row| row.server == FLOOR && row.polling == "off" && row.queue_depth == 1)
            .filter(|row| row.kicks_per_request > 0.5)
            .map(|row| row.kick_us * 1e3)
            .collect();
        let kick = if kicks.is_empty() {
            sleep.wake.kick
        } else {
            Duration::from_nanos(median(&kicks) as u64)
        };
        let service = deepest.min(alone / 2.0);
        Some(Self {
            service_ns: service as u64,
            client_ns: (alone - service) as u64,
            sleep: Sleeps {
                wake: sleep.wake.with_kick(kick),
                ..sleep
            },
        })
    }

    fn client_of(self, load: &Cell) -> ClosedLoop {
        let Sleeps {
            wake,
            both_asleep,
            idle_write,
        } = self.sleep;
        ClosedLoop {
            depth: load.queue_depth,
            think_ns: self.client_ns + (load.think_us * 1e3) as u64,
            client_sleeps: load.client == "event",
            service_ns: self.service_ns,
            wake,
            // The same system call wakes the client, on the same kind of core.
            call_ns: wake.kick.as_nanos() as u64,
            client_wake_ns: wake.latency.as_nanos() as u64,
            is_batched: true,
            // A client without completions makes a system call to sleep, which checks once more.
            client_stays_ns: idle_write.as_nanos() as u64,
            idle_call_ns: idle_write.as_nanos() as u64,
            both_asleep_ns: both_asleep.as_nanos() as u64,
            ..ClosedLoop::default()
        }
    }
}

/// The sign of the difference of two costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Cheaper,
    Level,
    Dearer,
}

impl Sign {
    /// Returns the sign of a ratio of costs.
    fn of(ratio: f64) -> Self {
        if ratio < 1.0 - LEVEL {
            Self::Cheaper
        } else if ratio > 1.0 + LEVEL {
            Self::Dearer
        } else {
            Self::Level
        }
    }

    /// Returns the sign of measured ratios, one for each round.
    fn of_rounds(ratios: &[f64]) -> Self {
        let (low, high) = range(ratios);
        if low < 1.0 && high > 1.0 {
            Self::Level
        } else {
            Self::of(median(ratios))
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cheaper => "cheaper",
            Self::Level => "level",
            Self::Dearer => "dearer",
        }
    }

    fn beside(self, seen: Self) -> Agreement {
        match (self, seen) {
            (Self::Level, Self::Level) => Agreement::Level,
            _ if self == seen => Agreement::Same,
            (Self::Level, _) | (_, Self::Level) => Agreement::Open,
            _ => Agreement::Opposite,
        }
    }
}

/// The agreement of a prediction with the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agreement {
    /// Both are level, so there is no sign to predict.
    Level,
    Same,
    /// One of them is level, the other is not.
    Open,
    Opposite,
}

/// Returns the simulated ratio of the cost of a request with adaptive polling to that with `against`.
fn predicted(prices: Prices, load: &Cell, against: &str) -> Option<f64> {
    let client = prices.client_of(load);
    let cost = |deciding| {
        client
            .run(deciding, REQUESTS, SEED)
            .map(|outcome: ClosedOutcome| outcome.cost_ns())
    };
    let other = match against {
        "off" => Deciding::Loop("never"),
        // The server has a core of its own.
        _ => Deciding::Policy("always"),
    };
    Some(cost(Deciding::Loop("learned"))? / cost(other)?)
}

/// The comparison of adaptive with another kind of polling at one load: predicted and measured.
struct Prediction {
    text: String,
    agreement: Agreement,
}

fn predictions(rows: &[Row], loads: &[Cell], prices: Prices) -> Vec<Prediction> {
    let mut all = Vec::new();
    for load in loads {
        for against in AGAINST {
            let measured = ratios_of(rows, load, &load.by(BLOCKD, against), |row| row.cost_us);
            let (Some(measured), Some(predicted)) = (measured, predicted(prices, load, against)) else {
                continue;
            };
            let (foreseen, seen) = (Sign::of(predicted), Sign::of_rounds(&measured));
            let (low, high) = range(&measured);
            let measured = median(&measured);
            all.push(Prediction {
                text: format!(
                    "{:<44} over {against:<6}  predicted {predicted:>6.2} {:<8}  measured {measured:>6.2} [{low:.2} - {high:.2}] {}",
                    load.work(),
                    foreseen.name(),
                    seen.name()
                ),
                agreement: foreseen.beside(seen),
            });
        }
    }
    all
}

/// Prints a line for each load, and the number of signs that agree.
pub(crate) fn print(rows: &[Row], loads: &[Cell]) {
    let Some(prices) = Prices::of(rows, Sleeps::measure()) else {
        println!(
            "\nNothing is predicted: that needs the runs that always poll, at depth 1 and without thinking"
        );
        return;
    };
    println!(
        "\nThe cost of a request with adaptive polling, as the simulator predicts it from these prices: a request takes the server {} ns and \
         the client {} ns;\na sleep {:.1?} until the server runs, {:.1?} more if the client slept, too, and {:.1?} of processor time; a kick \
         {:.1?}, {:.1?} if it wakes no thread",
        prices.service_ns,
        prices.client_ns,
        prices.sleep.wake.latency,
        prices.sleep.both_asleep,
        prices.sleep.wake.cpu,
        prices.sleep.wake.kick,
        prices.sleep.idle_write
    );
    let all = predictions(rows, loads, prices);
    for one in &all {
        let mark = match one.agreement {
            Agreement::Same | Agreement::Level => "",
            Agreement::Open => "  (one is level)",
            Agreement::Opposite => "  <- the opposite",
        };
        println!("  {}{mark}", one.text);
    }
    let count = |wanted| all.iter().filter(|one| one.agreement == wanted).count();
    let level = count(Agreement::Level);
    println!(
        "  of {} comparisons {level} are level both times (within {:.0} %, or rounds on both sides of 1.00); of the other {} signs {} agree, {} are \
         opposite, and in {} one is level",
        all.len(),
        100.0 * LEVEL,
        all.len() - level,
        count(Agreement::Same),
        count(Agreement::Opposite),
        count(Agreement::Open)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::row;

    fn of(polling: &'static str, depth: usize, iops: f64, cost_us: f64) -> Row {
        Row {
            queue_depth: depth,
            cost_us,
            ..row(BLOCKD, polling, 0, iops)
        }
    }

    fn sleeps(total_us: u64, kick_us: u64) -> Sleeps {
        let wake = WakeCost::of_total(Duration::from_micros(total_us));
        Sleeps {
            wake: wake.with_kick(Duration::from_micros(kick_us)),
            both_asleep: Duration::from_micros(5),
            idle_write: Duration::from_nanos(400),
        }
    }

    fn prices(sleep: Sleeps) -> Prices {
        Prices {
            service_ns: 250,
            client_ns: 750,
            sleep,
        }
    }

    #[test]
    fn prices_come_from_the_runs_that_always_poll_and_from_the_floor_that_sleeps() {
        let sleep = sleeps(10, 9);
        assert_eq!(Prices::of(&[of("off", 1, 1e6, 1.0)], sleep), None);
        let floor = Row {
            server: FLOOR,
            kicks_per_request: 1.0,
            ..of("off", 1, 1e5, 1.0)
        };
        let rows = [of("always", 1, 1e6, 1.0), of("always", 32, 4e6, 1.0), floor];
        // The kick of the rows takes a microsecond.
        assert_eq!(Prices::of(&rows, sleep), Some(prices(sleeps(10, 1))));
        // Without the floor the price of a kick is that of the measured sleep.
        assert_eq!(Prices::of(&rows[..2], sleep), Some(prices(sleep)));
    }

    #[test]
    fn the_sign_is_predicted_where_it_is_plain() {
        let prices = prices(sleeps(10, 3));
        let load = |client: &str, think_us| Cell {
            think_us,
            client: client.to_owned(),
            ..row(BLOCKD, "adaptive", 0, 1.0).cell()
        };
        let sign = |load: &Cell, against| Sign::of(predicted(prices, load, against).unwrap());
        // If the client is back in a microsecond, polling is much cheaper than sleeping. If it computes for a
        // millisecond, sleeping is much cheaper.
        assert_eq!(sign(&load("spin", 0.0), "off"), Sign::Cheaper);
        assert_eq!(sign(&load("spin", 1000.0), "always"), Sign::Cheaper);
        // If the policy always polls, its cost is level with always.
        assert_eq!(sign(&load("spin", 0.0), "always"), Sign::Level);
        // A client that sleeps unless the answer arrives at once, and kicks after a batch.
        let deep = |queue_depth| Cell {
            queue_depth,
            ..load("event", 10.0)
        };
        assert_eq!(sign(&deep(4), "off"), Sign::Cheaper);
        // The answers wait for the client, with every kind of polling.
        assert_eq!(sign(&deep(32), "off"), Sign::Level);
    }

    #[test]
    fn rounds_with_both_signs_are_level() {
        assert_eq!(Sign::of_rounds(&[0.5, 0.9, 1.1]), Sign::Level);
        assert_eq!(Sign::of_rounds(&[0.5, 0.9, 0.99]), Sign::Cheaper);
        assert_eq!(Sign::of_rounds(&[1.0, 1.01, 2.0]), Sign::Level);
        assert_eq!(Sign::of_rounds(&[1.0, 1.06, 2.0]), Sign::Dearer);
    }

    #[test]
    fn agreement_is_counted_by_load() {
        let rows = [
            of("off", 1, 1e5, 10.0),
            of("adaptive", 1, 1e6, 2.0),
            of("always", 1, 1e6, 1.0),
        ];
        let all = predictions(&rows, &[rows[1].cell()], prices(sleeps(10, 3)));
        let agreements: Vec<Agreement> = all.iter().map(|one| one.agreement).collect();
        // Adaptive is cheaper than off, as predicted. Against always it should be level, but cost twice as
        // much.
        assert_eq!(agreements, [Agreement::Same, Agreement::Open]);
        assert!(
            all[1].text.contains("level") && all[1].text.contains("2.00 [2.00 - 2.00] dearer"),
            "{}",
            all[1].text
        );
        assert_eq!(Sign::Cheaper.beside(Sign::Dearer), Agreement::Opposite);
        assert_eq!(Sign::Level.beside(Sign::Level), Agreement::Level);
    }
}
