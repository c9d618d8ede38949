//! `aio-simulation`: as many steps as one likes, with progress; what fails says how to see it again.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aio_simulation::{Plant, run};
use anyhow::{Context as _, bail};
use clap::Parser;

/// The event loop on a simulated kernel, with seeded faults
#[derive(Debug, Parser)]
struct Args {
    /// So many steps in all; the seeds are counted up until they are done
    #[arg(long, default_value_t = 10_000_000)]
    steps: u64,
    /// So many steps for each seed
    #[arg(long, default_value_t = 1_000)]
    each: u64,
    /// The first seed
    #[arg(long, env = "AIO_SEED", default_value_t = 0)]
    seed: u64,
    /// Only this seed, with everything that happens printed
    #[arg(long, conflicts_with_all = ["steps", "resume"])]
    one: Option<u64>,
    /// With `--one`: only the verdict
    #[arg(long)]
    brief: bool,
    /// With `--one`: put in the fault of this name
    #[arg(long)]
    plant: Option<String>,
    /// Keeps the place in this file, and goes on from there
    #[arg(long)]
    resume: Option<PathBuf>,
    /// So many threads at once [default: as many as there are cores]
    #[arg(long)]
    threads: Option<usize>,
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

/// What has been done, by all threads.
#[derive(Default)]
struct Done {
    seeds: AtomicU64,
    iterations: AtomicU64,
    callbacks: AtomicU64,
    faults: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// So many failures are enough.
const MOST_FAILURES: usize = 10;

fn many(args: &Args) -> anyhow::Result<ExitCode> {
    let each = args.each.max(1);
    let first = match &args.resume {
        Some(file) => place_in(file)?.unwrap_or(args.seed),
        None => args.seed,
    };
    let end = args.seed + args.steps.div_ceil(each);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(cores).max(1);
    println!("seeds {first}..{end}, {each} steps each, {threads} threads");
    let (done, next, started) = (Done::default(), AtomicU64::new(first), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&done, &next, end, each, threads == 1));
        }
        let mut shown = Instant::now();
        while first + done.seeds.load(Ordering::Relaxed) < end && !is_enough(&done) {
            std::thread::sleep(Duration::from_millis(50));
            if shown.elapsed() >= Duration::from_secs(5) {
                shown = Instant::now();
                show(&done, first, end, each, started);
                save(args, next.load(Ordering::Relaxed).saturating_sub(threads as u64));
            }
        }
    });
    show(&done, first, end, each, started);
    let failures = done
        .failures
        .lock()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    for failure in failures.iter() {
        println!("{failure}");
    }
    if !failures.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    save(args, end);
    Ok(ExitCode::SUCCESS)
}

fn is_enough(done: &Done) -> bool {
    done.failures
        .lock()
        .map_or(true, |failures| failures.len() >= MOST_FAILURES)
}

fn work(done: &Done, next: &AtomicU64, end: u64, each: u64, alone: bool) {
    while !is_enough(done) {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        match run(seed, each, None, false, alone) {
            Ok(summary) => {
                done.iterations.fetch_add(summary.iterations, Ordering::Relaxed);
                done.callbacks.fetch_add(summary.callbacks, Ordering::Relaxed);
                done.faults.fetch_add(summary.faults, Ordering::Relaxed);
            }
            Err(failure) => {
                if let Ok(mut failures) = done.failures.lock() {
                    failures.push(failure.to_string());
                }
            }
        }
        done.seeds.fetch_add(1, Ordering::Relaxed);
    }
}

fn show(done: &Done, first: u64, end: u64, each: u64, started: Instant) {
    let seeds = done.seeds.load(Ordering::Relaxed);
    println!(
        "{seeds} of {} seeds, {} steps, {} iterations, {} callbacks, {} faults, {} failures, {:.0} s",
        end.saturating_sub(first),
        seeds * each,
        done.iterations.load(Ordering::Relaxed),
        done.callbacks.load(Ordering::Relaxed),
        done.faults.load(Ordering::Relaxed),
        done.failures.lock().map_or(0, |failures| failures.len()),
        started.elapsed().as_secs_f64()
    );
}

fn place_in(file: &Path) -> anyhow::Result<Option<u64>> {
    if !file.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    match text.trim().parse() {
        Ok(seed) => Ok(Some(seed)),
        Err(_) => bail!("{} holds no seed", file.display()),
    }
}

/// The place is a convenience: a run does not fail because it cannot be kept.
fn save(args: &Args, seed: u64) {
    if let Some(file) = &args.resume
        && let Err(why) = std::fs::write(file, format!("{seed}\n"))
    {
        println!("the place could not be kept in {}: {why}", file.display());
    }
}
