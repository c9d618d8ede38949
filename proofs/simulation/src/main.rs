//! `aio-simulation`: any number of steps, with progress. A failure is printed with the command that repeats it.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use aio_simulation::{Failure, Plant, run};
use anyhow::Context as _;
use clap::Parser;

/// Run the event loop on a simulated kernel, with seeded faults
#[derive(Debug, Parser)]
struct Args {
    /// Number of steps in all; the seeds count up until it is reached
    #[arg(long, default_value_t = 10_000_000)]
    steps: u64,
    /// Number of steps for each seed
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    each: u64,
    #[command(flatten)]
    seeds: aio_seeds::Args,
    /// Run only this seed, and print every step
    #[arg(long, conflicts_with_all = ["steps", "resume"])]
    one: Option<u64>,
    /// With `--one`: print only the verdict
    #[arg(long)]
    brief: bool,
    /// With `--one`: plant the fault of this name
    #[arg(long)]
    plant: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match args.one {
        Some(seed) => one(seed, &args),
        None => many(&args),
    }
}

fn one(seed: u64, args: &Args) -> anyhow::Result<ExitCode> {
    let plant = match &args.plant {
        None => None,
        Some(name) => {
            let known = Plant::ALL.into_iter().find(|plant| format!("{plant:?}") == *name);
            Some(known.with_context(|| format!("{name} is none of {:?}", Plant::ALL))?)
        }
    };
    match run(seed, args.each, plant, !args.brief, true) {
        Ok(summary) => {
            println!("{summary:?}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            println!("{failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The sum of the work of all threads.
#[derive(Default)]
struct Done {
    steps: AtomicU64,
    iterations: AtomicU64,
    callbacks: AtomicU64,
    operations: AtomicU64,
    faults: AtomicU64,
}

fn many(args: &Args) -> anyhow::Result<ExitCode> {
    let done = Done::default();
    let alone = args.seeds.threads.is_some_and(|threads| threads.get() == 1);
    let one = |seed| {
        let summary = run(seed, args.each, None, false, alone)?;
        done.steps.fetch_add(summary.steps, Ordering::Relaxed);
        done.iterations.fetch_add(summary.iterations, Ordering::Relaxed);
        done.callbacks.fetch_add(summary.callbacks, Ordering::Relaxed);
        done.operations.fetch_add(summary.operations, Ordering::Relaxed);
        done.faults.fetch_add(summary.faults, Ordering::Relaxed);
        Ok::<(), Failure>(())
    };
    let so_far = || {
        let Done {
            steps,
            iterations,
            callbacks,
            operations,
            faults,
        } = &done;
        let so_far = [steps, iterations, callbacks, operations, faults];
        let [steps, iterations, callbacks, operations, faults] =
            so_far.map(|count| count.load(Ordering::Relaxed));
        format!(
            "{steps} steps, {iterations} iterations, {callbacks} callbacks, {operations} operations, {faults} faults"
        )
    };
    aio_seeds::run(&args.seeds, args.steps.div_ceil(args.each), one, so_far)
}
