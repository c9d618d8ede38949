//! Threads that use every thread-safe part of a loop, for ThreadSanitizer. It is a program of its own,
//! because the test harness is not instrumented and has races of its own.
//!
//! `cargo xtask prove --only tsan` builds and runs it. Without the sanitizer it is a stress test that counts.
//! Both sides access the content of a message without further synchronisation, so a missing order is a race.
//! Nothing here is ordered by the standard library's locks and channels, which are not instrumented either.

mod contexts;
mod crowd;
mod planted;
mod wakeups;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

/// Run threads that use every thread-safe part of a loop
#[derive(Debug, Parser)]
struct Args {
    /// Number of repetitions of each scenario
    #[arg(long, value_name = "N", default_value_t = 50)]
    rounds: u32,
    /// Run only these scenarios
    #[arg(long, value_name = "NAME,NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Run only a planted fault, which a sanitizer must find
    #[arg(long, value_name = "FAULT")]
    plant: Option<Fault>,
}

/// A planted fault.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Fault {
    /// Threads write the same place without order
    Race,
    /// Freed memory is read
    UseAfterFree,
    /// Memory is never freed
    Leak,
    /// A descriptor is never closed
    Descriptor,
}

/// A name, and a function for one round. The function gets the number of the round. A round ends when all
/// messages have arrived.
type Scenario = (&'static str, fn(u32) -> anyhow::Result<()>);

const SCENARIOS: [Scenario; 9] = [
    ("inbox", wakeups::inbox),
    ("inbox closed under way", wakeups::inbox_closes),
    ("nodes posted and retired", wakeups::nodes),
    ("board", wakeups::board),
    ("jobs", contexts::jobs),
    ("bottom halves", contexts::bottom_halves),
    ("kicks", contexts::kicks),
    ("parameters, statistics, clock", contexts::knobs),
    ("the context goes first", contexts::goes_first),
];

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(fault) = args.plant {
        return plant(fault);
    }
    for (name, scenario) in SCENARIOS {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        let began = Instant::now();
        for round in 0..args.rounds {
            if let Err(error) = scenario(round) {
                eprintln!("{name}: round {round}: {error:#}");
                return ExitCode::FAILURE;
            }
        }
        println!(
            "{name}: {} rounds in {:.1} s",
            args.rounds,
            began.elapsed().as_secs_f64()
        );
    }
    ExitCode::SUCCESS
}

fn plant(fault: Fault) -> ExitCode {
    match fault {
        Fault::Race => planted::race(),
        Fault::UseAfterFree => planted::use_after_free(),
        Fault::Leak => planted::leak(),
        Fault::Descriptor => {
            if planted::descriptor().is_err() {
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives() {
        for (name, scenario) in SCENARIOS {
            for round in 0..3 {
                scenario(round).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            }
        }
    }
}
