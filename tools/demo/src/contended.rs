//! The daemon under a quota of processor time, and on one core with its client (rule A13).
//!
//! Each policy is measured in turns with polling off. It must not raise the 99th percentile of latency by
//! more than a tenth.

use std::path::Path;
use std::time::Duration;

use aio_context::Policy;
use aio_tools::cores::{self, Cores};
use aio_tools::interrupt::Interrupt;
use aio_tools::report::{median, range};
use anyhow::ensure;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::args::has_all;
use crate::client::{Client, Waits};
use crate::control_group::{ControlGroup, Limit};
use crate::measure::{one_run, settle};
use crate::plan::{Load, Pace};
use crate::row::{self, Cell, cells, figures, ratios_of};
use crate::server::{BLOCKD, Kind, Polling, Program, Server};

/// The quota, in percent of a core.
const QUOTA: u32 = 20;
/// The highest permitted ratio of the 99th percentile to that without polling.
const MOST: f64 = 1.1;
const THINK: Duration = Duration::from_micros(10);

/// The processor time that the daemon shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    /// The daemon may run for a fifth of the time.
    Quota,
    /// The client runs on the daemon's core.
    OneCore,
}

impl Situation {
    fn name(self) -> String {
        match self {
            Self::Quota => format!("quota of {QUOTA} %"),
            Self::OneCore => "one core".to_owned(),
        }
    }

    fn core_of_client(self, cores: Cores) -> usize {
        match self {
            Self::Quota => cores.client,
            Self::OneCore => cores.server,
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

/// The figures of one run, and its situation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    situation: String,
    #[serde(flatten)]
    run: row::Row,
}

/// Returns polling off, and each policy that a user can choose.
fn pollings() -> Vec<Polling> {
    let policies = Policy::NAMES.iter().filter(|name| **name != "never");
    [Polling::Off]
        .into_iter()
        .chain(policies.map(|name| Polling::Policy(name)))
        .collect()
}

/// Returns `true` if a run is wanted. Its description, as in "one core, event client, depth 1, learned", must
/// have all words of `only`, or it must be the run without polling that such a run is compared with.
fn is_wanted(only: &[String], situation: Situation, load: Load, polling: Polling) -> bool {
    let describe = |polling: Polling| {
        let (situation, client, depth) = (situation.name(), load.client(), load.depth());
        format!("{situation}, {client} client, depth {depth}, {}", polling.name())
    };
    let is_named = |polling| has_all(&describe(polling), only);
    is_named(polling) || polling == Polling::Off && pollings().into_iter().any(is_named)
}

/// Measures all policies in turns: the runs whose descriptions have all words of `only`, and the runs without
/// polling that they are compared with. If a situation cannot be made, it prints a line and skips it.
pub(crate) fn measure(
    blockd: &Path,
    cores: Option<Cores>,
    (rounds, time): (usize, Duration),
    only: &[String],
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let pace = Pace {
        warm_up: time / 4,
        time,
    };
    let quota = ControlGroup::make(Limit::ProcessorTime { percent: QUOTA });
    if let Err(why) = &quota {
        println!("skipped: {}: {why:#}", Situation::Quota.name());
    }
    // Dropped before the quota, because the group's processes must have ended by then.
    let mut servers = Vec::new();
    for polling in pollings() {
        servers.push((Situation::OneCore, start(None, blockd, polling, cores)?));
        if let Ok(quota) = &quota {
            let server = start(Some(quota), blockd, polling, cores)?;
            servers.push((Situation::Quota, server));
        }
    }
    for (_, server) in &servers {
        Client::connect(&server.socket(), server.contents(), Waits::Spinning)?.fill()?;
    }
    let runs: Vec<(Situation, Load, &Server)> = [Situation::Quota, Situation::OneCore]
        .into_iter()
        .flat_map(|situation| situation.loads().into_iter().map(move |load| (situation, load)))
        .flat_map(|(situation, load)| {
            let of = servers.iter().filter(move |(of, _)| *of == situation);
            of.map(move |(_, server)| (situation, load, server))
        })
        .filter(|(situation, load, server)| is_wanted(only, *situation, *load, server.kind().polling))
        .collect();
    ensure!(!runs.is_empty(), "no run has all of {only:?} in its description");
    let mut rows = Vec::new();
    let progress = ProgressBar::new((rounds * runs.len()) as u64);
    for round in 0..rounds {
        for (situation, load, server) in &runs {
            interrupt.check()?;
            settle(|| servers.iter().map(|(_, server)| server.cpu_time()).sum())?;
            if let Some(cores) = cores {
                cores::pin(situation.core_of_client(cores));
            }
            let run = one_run(pace, server, *load, 0, round)?;
            if let Some(cores) = cores {
                cores::pin(cores.client);
            }
            rows.push(Row {
                situation: situation.name(),
                run,
            });
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}

fn start(
    quota: Option<&ControlGroup>,
    blockd: &Path,
    polling: Polling,
    cores: Option<Cores>,
) -> anyhow::Result<Server> {
    let kind = Kind {
        program: Program::Blockd,
        polling,
    };
    Server::start_within(quota, kind, blockd, 0, cores)
}

/// Prints a table for each load, and the policies that raise the latency.
pub(crate) fn print(rows: &[Row]) {
    for situation in [Situation::Quota, Situation::OneCore].map(Situation::name) {
        let of = rows.iter().filter(|row| row.situation == situation);
        let runs: Vec<row::Row> = of.map(|row| row.run.clone()).collect();
        let off = cells(&runs)
            .into_iter()
            .filter(|cell| cell.polling == Polling::Off.name());
        for off in off {
            println!("\n{situation}, {} client, depth {}", off.client, off.queue_depth);
            for polling in pollings() {
                let cell = off.by(BLOCKD, polling.name());
                if !figures(&runs, &cell, |row| row.p99_us).is_empty() {
                    print_policy(&runs, &cell);
                }
            }
        }
    }
    println!("\nGoal: the 99th percentile at most {MOST} times the one without polling");
}

fn print_policy(runs: &[row::Row], cell: &Cell) {
    let of = |figure: fn(&row::Row) -> f64| median(&figures(runs, cell, figure));
    let ratios = over_off(runs, cell).unwrap_or_default();
    let (low, high) = range(&ratios);
    let verdict = if median(&ratios) <= MOST { "" } else { "  missed" };
    println!(
        "  {:<14} p50 {:>8.1} us   p99 {:>9.1} us   p99.9 {:>9.1} us   CPU {:>3.0} %   p99 over off {:>5.2} [{low:.2} - {high:.2}]{verdict}",
        cell.polling,
        of(|row| row.p50_us),
        of(|row| row.p99_us),
        of(|row| row.p999_us),
        of(|row| row.server_cpu_pct),
        median(&ratios),
    );
}

/// Returns the ratios of the 99th percentile to that without polling, one for each round.
fn over_off(runs: &[row::Row], cell: &Cell) -> Option<Vec<f64>> {
    ratios_of(runs, cell, &cell.by(BLOCKD, Polling::Off.name()), |row| {
        row.p99_us
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{in_round, row};

    #[test]
    fn a13_each_policy_is_compared_with_polling_off_in_the_same_round() {
        let row = |polling: Polling, round, p99_us| row::Row {
            p99_us,
            ..in_round(round, row(BLOCKD, polling.name(), 0, 1.0))
        };
        let always = Polling::Policy("always");
        let rows = [
            row(Polling::Off, 0, 10.0),
            row(always, 0, 20.0),
            row(Polling::Off, 1, 40.0),
            row(always, 1, 20.0),
            row(always, 2, 1.0),
        ];
        assert_eq!(over_off(&rows, &rows[1].cell()).unwrap(), [2.0, 0.5]);
        assert!(pollings().contains(&always) && pollings().len() == Policy::NAMES.len());
    }
}
