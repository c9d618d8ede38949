//! `aio-reference`: as many operations as one likes, with progress; what differs says how to see it again.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aio_reference::{Setup, Tally, USUAL, Waiter, check_and_show, run_seed};
use anyhow::{Context as _, bail};
use clap::Parser;

/// The event loop beside a reference: random sequences of operations, on every backend and policy
#[derive(Debug, Parser)]
struct Args {
    /// So many operations in all, each done on every backend; seeds are counted up until they are done
    #[arg(long, default_value_t = 1_200_000)]
    operations: u64,
    /// So many operations for each sequence
    #[arg(long, default_value_t = USUAL)]
    each: usize,
    /// The first seed
    #[arg(long, env = "AIO_SEED", default_value_t = 0)]
    seed: u64,
    /// Only this trace
    #[arg(long, conflicts_with_all = ["operations", "resume"])]
    trace: Option<String>,
    /// With `--trace`: on this set-up, such as `epoll/learned`; otherwise on each
    #[arg(long)]
    setup: Option<String>,
    /// Keeps the place in this file, and goes on from there
    #[arg(long)]
    resume: Option<PathBuf>,
    /// So many threads at once [default: as many as there are cores]
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match &args.trace {
        Some(trace) => one(trace, args.setup.as_deref()),
        None => many(&args),
    }
}

fn one(trace: &str, setup: Option<&str>) -> anyhow::Result<ExitCode> {
    let setups = match setup {
        Some(name) => vec![Setup::by_name(name).with_context(|| format!("there is no set-up {name}"))?],
        None => Waiter::ALL.map(|waiter| Setup::new(waiter, 0)).to_vec(),
    };
    let mut code = ExitCode::SUCCESS;
    for setup in setups {
        match check_and_show(setup, trace, &mut |op, log| println!("  {op}: {log:?}")) {
            Ok(summary) => println!("{setup}: {summary:?}"),
            Err(why) => {
                println!("{setup}: {why}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// What has been done, by all threads.
#[derive(Default)]
struct Done {
    seeds: AtomicU64,
    operations: AtomicU64,
    tally: Mutex<Tally>,
    /// The seeds of those that were found.
    differences: Mutex<Vec<u64>>,
}

/// So many differences are enough.
const MOST_DIFFERENCES: usize = 5;

impl Done {
    fn differences(&self) -> usize {
        self.differences
            .lock()
            .map_or(usize::MAX, |differences| differences.len())
    }

    /// Where a later run goes on: never beyond a difference.
    fn place(&self, next: u64) -> u64 {
        let first = self
            .differences
            .lock()
            .ok()
            .and_then(|seeds| seeds.iter().copied().min());
        first.map_or(next, |first| first.min(next))
    }

    fn is_enough(&self) -> bool {
        self.differences() >= MOST_DIFFERENCES
    }
}

fn many(args: &Args) -> anyhow::Result<ExitCode> {
    let first = match &args.resume {
        Some(file) => place_in(file)?.unwrap_or(args.seed),
        None => args.seed,
    };
    let each = args.each.max(1);
    let end = args.seed + args.operations.div_ceil(each as u64);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(cores).max(1);
    println!(
        "seeds {first}..{end}, {each} operations each, in {} ways to wait, {threads} threads",
        Waiter::ALL.len()
    );
    let (done, next, started) = (Done::default(), AtomicU64::new(first), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&done, &next, end, each));
        }
        let mut shown = Instant::now();
        while first + done.seeds.load(Ordering::Relaxed) < end && !done.is_enough() {
            std::thread::sleep(Duration::from_millis(50));
            if shown.elapsed() >= Duration::from_secs(5) {
                shown = Instant::now();
                show(&done, first, end, started);
                let place = next.load(Ordering::Relaxed).saturating_sub(threads as u64);
                save(args, done.place(place));
            }
        }
    });
    if let Ok(tally) = done.tally.lock() {
        println!("{tally:?}");
    }
    show(&done, first, end, started);
    save(args, done.place(end));
    Ok(if done.differences() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn work(done: &Done, next: &AtomicU64, end: u64, each: usize) {
    while !done.is_enough() {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        match run_seed(seed, each, None) {
            Ok(summary) => {
                done.operations.fetch_add(summary.operations, Ordering::Relaxed);
                if let Ok(mut tally) = done.tally.lock() {
                    tally.add(&summary.tally);
                }
            }
            Err(difference) => {
                println!("AIO_SEED={seed}: {difference}");
                if let Ok(mut differences) = done.differences.lock() {
                    differences.push(seed);
                }
            }
        }
        done.seeds.fetch_add(1, Ordering::Relaxed);
    }
}

fn show(done: &Done, first: u64, end: u64, started: Instant) {
    println!(
        "{} of {} sequences, {} operations, {} callbacks and iterations compared, {} differences, {:.0} s",
        done.seeds.load(Ordering::Relaxed),
        end.saturating_sub(first),
        done.operations.load(Ordering::Relaxed),
        done.tally.lock().map_or(0, |tally| tally.total()),
        done.differences(),
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
