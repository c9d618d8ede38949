//! `aio-reference`: any number of operations, with progress. A difference is printed with the command that repeats it.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use aio_reference::{Difference, Setup, Tally, USUAL, Waiter, check_and_show, run_seed};
use anyhow::Context as _;
use clap::Parser;

/// Compare the event loop with a reference: random sequences of operations, on every backend and policy
#[derive(Debug, Parser)]
struct Args {
    /// The number of operations in all, each done on every backend; the seeds count up until it is reached
    #[arg(long, default_value_t = 1_200_000)]
    operations: u64,
    /// The number of operations of each sequence
    #[arg(long, default_value_t = USUAL)]
    each: usize,
    #[command(flatten)]
    seeds: aio_seeds::Args,
    /// Run only this trace
    #[arg(long, conflicts_with_all = ["operations", "resume"])]
    trace: Option<String>,
    /// With `--trace`: use this set-up, such as `epoll/learned`, instead of each
    #[arg(long)]
    setup: Option<String>,
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

fn many(args: &Args) -> anyhow::Result<ExitCode> {
    let (operations, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    let each = args.each.max(1);
    let one = |seed| {
        let summary = run_seed(seed, each, None)?;
        operations.fetch_add(summary.operations, Ordering::Relaxed);
        if let Ok(mut tally) = tally.lock() {
            tally.add(&summary.tally);
        }
        Ok::<(), Box<Difference>>(())
    };
    let so_far = || {
        let compared = tally.lock().map_or(0, |tally| tally.total());
        let operations = operations.load(Ordering::Relaxed);
        format!("{operations} operations, {compared} callbacks and iterations compared")
    };
    println!(
        "{each} operations for each seed, in {} ways to wait",
        Waiter::ALL.len()
    );
    let ended = aio_seeds::run(&args.seeds, args.operations.div_ceil(each as u64), one, so_far)?;
    if let Ok(tally) = tally.lock() {
        println!("{tally:?}");
    }
    let verdict = if ended == ExitCode::SUCCESS {
        "0 differences"
    } else {
        "differences, see above"
    };
    println!("{}, {verdict}", so_far());
    Ok(ended)
}
