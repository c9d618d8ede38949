//! What the simulator predicts for each load of the grid, beside what was measured: the sign of polling.
//!
//! [`ClosedLoop`] simulates a client and a server at the prices of this machine. Most of them come from the measurement itself, so that it
//! tests the model and not the guesses: how long a request takes the server and the client, and how long a kick. A sleep is measured
//! as blockd does at its start.

use std::time::Duration;

use aio_context::WakeCost;
use aio_replay::{ClosedLoop, ClosedOutcome, Deciding};
use aio_sources::measure_wake_cost;
use aio_tools::report::median;

use crate::row::{Cell, Row, ratios_of};
use crate::server::BLOCKD;

const REQUESTS: u64 = 20_000;
const SEED: u64 = 14;
/// Costs that differ by less are level.
const LEVEL: f64 = 0.05;
/// The first is judged by the others.
const AGAINST: [&str; 2] = ["off", "always"];

/// Prices of the machine, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Prices {
    /// For a request, without waiting: of the server, and of the client.
    service_ns: u64,
    client_ns: u64,
    wake: WakeCost,
}

impl Prices {
    /// From the runs that always poll. At the greatest depth the slower side limits the rate; one request at a time both sides take
    /// turns. `None` without those runs.
    fn of(rows: &[Row], wake: WakeCost) -> Option<Self> {
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
        let kicks: Vec<f64> = rows
            .iter()
            .filter(|row| row.server == BLOCKD && row.kicks_per_request > 0.001)
            .map(|row| row.kick_us * 1e3)
            .collect();
        let kick = if kicks.is_empty() {
            wake.kick
        } else {
            Duration::from_nanos(median(&kicks) as u64)
        };
        let service = deepest.min(alone / 2.0);
        Some(Self {
            service_ns: service as u64,
            client_ns: (alone - service) as u64,
            wake: wake.with_kick(kick),
        })
    }

    fn client_of(self, load: &Cell) -> ClosedLoop {
        ClosedLoop {
            depth: load.queue_depth,
            think_ns: self.client_ns + (load.think_us * 1e3) as u64,
            client_sleeps: load.client == "event",
            service_ns: self.service_ns,
            wake: self.wake,
            // The client is woken by the same system call, on the same kind of core.
            call_ns: self.wake.kick.as_nanos() as u64,
            client_wake_ns: self.wake.latency.as_nanos() as u64,
            ..ClosedLoop::default()
        }
    }
}

/// Whether one cost is above another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Cheaper,
    Level,
    Dearer,
}

impl Sign {
    /// Of a cost over another one.
    fn of(ratio: f64) -> Self {
        if ratio < 1.0 - LEVEL {
            Self::Cheaper
        } else if ratio > 1.0 + LEVEL {
            Self::Dearer
        } else {
            Self::Level
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
        if self == seen {
            Agreement::Same
        } else if self == Self::Level || seen == Self::Level {
            Agreement::Open
        } else {
            Agreement::Opposite
        }
    }
}

/// How a prediction fits the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agreement {
    Same,
    /// One of them is level, the other is not.
    Open,
    Opposite,
}

/// The cost of a request with adaptive polling over the one with another, as simulated.
fn predicted(prices: Prices, load: &Cell, against: &str) -> Option<f64> {
    let client = prices.client_of(load);
    let cost = |deciding| {
        client
            .run(deciding, REQUESTS, SEED)
            .map(|outcome: ClosedOutcome| outcome.cost_ns())
    };
    let other = match against {
        "off" => Deciding::Fixed(0),
        _ => Deciding::Policy("always"),
    };
    Some(cost(Deciding::Policy("learned"))? / cost(other)?)
}

/// One load, adaptive against another: what was predicted, and what was measured.
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
            let measured = median(&measured);
            let (foreseen, seen) = (Sign::of(predicted), Sign::of(measured));
            all.push(Prediction {
                text: format!(
                    "{:<44} over {against:<6}  predicted {predicted:>6.2} {:<8}  measured {measured:>6.2} {}",
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

/// Prints a line for each load, and how often the signs agree.
pub(crate) fn print(rows: &[Row], loads: &[Cell]) {
    // Without a measurement the assumption has to do.
    let wake = measure_wake_cost().unwrap_or(WakeCost::ASSUMED);
    let Some(prices) = Prices::of(rows, wake) else {
        println!(
            "\nNothing is predicted: that needs the runs that always poll, at depth 1 and without thinking"
        );
        return;
    };
    println!(
        "\nThe cost of a request with adaptive polling, as the simulator predicts it from these prices: a request takes the server {} ns and \
         the client {} ns;\na sleep {:.1?} until the server runs and {:.1?} of processor time, a kick {:.1?}",
        prices.service_ns, prices.client_ns, prices.wake.latency, prices.wake.cpu, prices.wake.kick
    );
    let all = predictions(rows, loads, prices);
    for one in &all {
        let mark = match one.agreement {
            Agreement::Same => "",
            Agreement::Open => "  (one is level)",
            Agreement::Opposite => "  <- the opposite",
        };
        println!("  {}{mark}", one.text);
    }
    let count = |wanted| all.iter().filter(|one| one.agreement == wanted).count();
    println!(
        "  of {} signs {} agree, {} are opposite; in the others one is level (within {:.0} %)",
        all.len(),
        count(Agreement::Same),
        count(Agreement::Opposite),
        100.0 * LEVEL
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

    #[test]
    fn prices_come_from_the_runs_that_always_poll() {
        let wake = WakeCost::of_total(Duration::from_micros(10));
        assert_eq!(Prices::of(&[of("off", 1, 1e6, 1.0)], wake), None);
        let rows = [of("always", 1, 1e6, 1.0), of("always", 32, 4e6, 1.0)];
        let prices = Prices::of(&rows, wake).unwrap();
        // The kick of the rows takes a microsecond.
        assert_eq!((prices.service_ns, prices.client_ns), (250, 750));
        assert_eq!(prices.wake, wake.with_kick(Duration::from_micros(1)));
    }

    #[test]
    fn the_sign_is_predicted_where_it_is_plain() {
        let wake = WakeCost::of_total(Duration::from_micros(10)).with_kick(Duration::from_micros(3));
        let prices = Prices {
            service_ns: 250,
            client_ns: 750,
            wake,
        };
        let load = |think_us| Cell {
            think_us,
            ..row(BLOCKD, "adaptive", 0, 1.0).cell()
        };
        // A client that is back in a microsecond: polling is much cheaper than sleeping. One that thinks for a millisecond: the reverse.
        let quick = predicted(prices, &load(0.0), "off").unwrap();
        let slow = predicted(prices, &load(1000.0), "always").unwrap();
        assert_eq!(
            (Sign::of(quick), Sign::of(slow)),
            (Sign::Cheaper, Sign::Cheaper),
            "{quick} {slow}"
        );
    }

    #[test]
    fn agreement_is_counted_by_load() {
        let rows = [
            of("off", 1, 1e5, 10.0),
            of("adaptive", 1, 1e6, 2.0),
            of("always", 1, 1e6, 1.0),
        ];
        let prices = Prices {
            service_ns: 250,
            client_ns: 750,
            wake: WakeCost::of_total(Duration::from_micros(10)),
        };
        let all = predictions(&rows, &[rows[1].cell()], prices);
        let agreements: Vec<Agreement> = all.iter().map(|one| one.agreement).collect();
        // Cheaper than off, as predicted; against always it should be level and was twice as dear.
        assert_eq!(agreements, [Agreement::Same, Agreement::Open]);
        assert!(
            all[1].text.contains("level") && all[1].text.contains("2.00 dearer"),
            "{}",
            all[1].text
        );
        assert_eq!(Sign::Cheaper.beside(Sign::Dearer), Agreement::Opposite);
    }
}
