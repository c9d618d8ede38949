//! `cargo xtask soak`: the long mixed run, built optimised.

use std::time::Duration;

use aio_tools::interrupt::Interrupt;
use aio_tools::shell;

/// A day: the run watches itself for standing still.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A long mixed run: memory, descriptors and speed stay what they are
///
/// Descriptors, timers, bottom halves and jobs from other threads, notify storms, polled queues, pauses, polling on and off,
/// contexts that come and go. Fails if memory grows by more than 1 MiB after the warm-up, if a descriptor is left open, if
/// the last tenth is slower than 95 % of the first, or if nothing happens for 30 seconds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many callbacks are to run
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    events: u64,
    /// Where the random choices begin, to repeat a run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    let mut cargo = shell::cargo();
    cargo
        .args([
            "run",
            "--release",
            "--quiet",
            "--locked",
            "--package",
            "aio-soak",
            "--",
        ])
        .args(["--events", &args.events.to_string()]);
    if let Some(seed) = args.seed {
        cargo.args(["--seed", &seed.to_string()]);
    }
    shell::run_within(&mut cargo, LIMIT, &interrupt)
}
