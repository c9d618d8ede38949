//! `aio-faults`: any number of injections, with progress; the table; and the program alone, for tools that
//! disturb it from outside.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use aio_faults::program::{ALL_DONE, work};
use aio_faults::{Kind, Sweep};
use clap::Parser;

/// Make every system call of the event loop fail, one after the other
#[derive(Debug, Parser)]
struct Args {
    /// Continue with several faults at once until this number has been injected
    #[arg(long, default_value_t = 0)]
    injections: u64,
    /// The seed of the random choices
    #[arg(long, env = "AIO_SEED", default_value_t = 0)]
    seed: u64,
    /// Print the table: call, fault, outcome
    #[arg(long)]
    table: bool,
    /// Only run the program, undisturbed, with ppoll, epoll, ladder-0, ladder-4, uring or ladder-uring, or do `nothing`
    #[arg(long)]
    work: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.work.as_deref() {
        Some("nothing") => ExitCode::SUCCESS,
        Some(kind) => alone(kind),
        None => sweep(&args),
    }
}

fn alone(kind: &str) -> ExitCode {
    let kind = match kind {
        "ppoll" => Kind::Ppoll,
        "epoll" => Kind::Epoll,
        "ladder-0" => Kind::LadderAt0,
        "uring" => Kind::Uring,
        "ladder-uring" => Kind::LadderToUring,
        _ => Kind::LadderAt4,
    };
    let open = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = open();
    let report = work(|| kind.context());
    let left = open();
    println!("{report:?}, {before} descriptors before, {left} after");
    let whole = report.lost.is_none() && report.done == ALL_DONE && before == left;
    ExitCode::from(u8::from(!whole))
}

fn sweep(args: &Args) -> ExitCode {
    let (mut sweep, started) = (Sweep::default(), Instant::now());
    let mut shown = Instant::now();
    let mut progress = |sweep: &Sweep| {
        if shown.elapsed() > Duration::from_secs(5) {
            shown = Instant::now();
            println!(
                "{} injections in {} runs, {} failures",
                sweep.injected,
                sweep.runs,
                sweep.failures.len()
            );
        }
    };
    sweep.every_call(&mut progress);
    sweep.drawn(args.injections, args.seed, &mut progress);
    if args.table {
        println!("{sweep}");
    }
    println!(
        "{} injections in {} runs, {} failures, {:.0} s",
        sweep.injected,
        sweep.runs,
        sweep.failures.len(),
        started.elapsed().as_secs_f64()
    );
    for failure in &sweep.failures {
        println!("{failure}");
    }
    ExitCode::from(u8::from(!sweep.failures.is_empty()))
}
