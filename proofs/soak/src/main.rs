//! A long mixed run, which checks that memory, descriptors and speed stay the same for any number of events.
//!
//! `cargo xtask soak --events N` builds it optimized and runs it. It judges by three figures: resident memory
//! after the warm-up and at the end, open descriptors before and after, and the cost of an event in the first
//! and in the last tenth. The cost is processor time, in units of a small work that is measured beside it, so
//! other users of the machine do not affect the verdict.

mod churn;
mod gauge;
mod handlers;
mod helpers;
mod tally;
mod verdict;
mod watchdog;
mod world;

use std::ops::Range;
use std::process::{Command, ExitCode};

use aio_tools::build;
use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use gauge::{Gauges, Yardstick};
use verdict::{Slice, Verdict};
use watchdog::Watchdog;
use world::World;

/// The number of slices that are measured separately. Twenty make a tenth, enough for a figure that other
/// load does not affect.
const SLICES: u64 = 200;
const TENTH: u64 = SLICES / 10;
/// The number of times that a last tenth that was too slow is compared with a new first one.
const ATTEMPTS: u32 = 5;
/// The number of events a slice that is enough for that.
const COMPARED: u64 = 50_000;
/// One of this number of events is for the warm-up, in addition to the others.
const WARM_UP: u64 = 10;

/// A long mixed run of event loops
#[derive(Debug, Parser)]
struct Args {
    /// Number of callbacks to run, after the warm-up
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    events: u64,
    /// Seed of the random choices [default: AIO_SEED, or a new one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Only measure the cost of an event in a run that has just begun, with this number of events a slice
    #[arg(long, value_name = "N", hide = true)]
    first_tenth: Option<u64>,
    /// Plant a fault, which the run must find
    #[arg(long, value_name = "FAULT")]
    plant: Option<Fault>,
}

/// A fault that can be planted, to check that the run finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// Sixty-four bytes are never freed, for each event
    Memory,
    /// A descriptor is never closed
    Descriptor,
    /// Events take longer and longer, twice as long at the end
    Slow,
    /// A wake-up is lost, and the loop never returns
    Hang,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    build::require_optimized("cargo xtask soak")?;
    let from_environment = std::env::var("AIO_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = args
        .seed
        .or(from_environment)
        .unwrap_or_else(|| fastrand::u64(..));
    fastrand::seed(seed);

    let watchdog = Watchdog::start(seed);
    if let Some(slice) = args.first_tenth {
        let mut load = Load::new(None)?;
        load.world.run(slice * SLICES / WARM_UP, &watchdog)?;
        println!("{}", verdict::cost(&load.slices(0..TENTH, slice, &watchdog)?));
        return Ok(true);
    }
    println!("AIO_SEED={seed}, {} events", args.events);
    let before = Gauges::read()?;
    let mut load = Load::new(args.plant)?;
    let slice = (args.events / SLICES).max(1);
    load.world.run(args.events / WARM_UP, &watchdog)?;
    let warm = Gauges::read()?;
    let mut slices = Vec::with_capacity(SLICES as usize);
    for tenth in 0..10 {
        let numbers = tenth * TENTH..(tenth + 1) * TENTH;
        slices.extend(load.slices(numbers, slice, &watchdog)?);
        println!("{:>3} %  {}", (tenth + 1) * 10, verdict::pace(&slices));
    }
    let end = Gauges::read()?;
    let speed = load.confirmed(verdict::speed(&slices), slice, &watchdog)?;
    println!("{}", load.world);
    drop(load);
    let after = Gauges::read()?;
    drop(watchdog);
    let verdict = Verdict {
        grown: end.resident.saturating_sub(warm.resident),
        left_open: after.descriptors.saturating_sub(before.descriptors),
        speed,
        slices,
    };
    println!("{verdict}");
    Ok(verdict.is_good())
}

/// The load, its measurements, and the planted fault.
struct Load {
    world: World,
    yardstick: Yardstick,
    fault: Option<Fault>,
    /// The memory that a planted leak leaves behind.
    leaked: Vec<Box<[u8]>>,
}

impl Load {
    fn new(fault: Option<Fault>) -> anyhow::Result<Self> {
        Ok(Self {
            world: World::new().context("cannot set up")?,
            yardstick: Yardstick::new()?,
            fault,
            leaked: Vec::new(),
        })
    }

    /// Runs slices of `events` events each.
    fn slices(
        &mut self,
        numbers: Range<u64>,
        events: u64,
        watchdog: &Watchdog,
    ) -> anyhow::Result<Vec<Slice>> {
        let one = |number| {
            let began = Gauges::read()?;
            let events = self.world.run(events, watchdog)?;
            self.plant(number, events, &began)?;
            let ended = Gauges::read()?;
            Ok(Slice::between(&began, &ended, events, self.yardstick.measure()?))
        };
        numbers.map(one).collect()
    }

    /// Applies the planted fault, in a slice that has run `events` events.
    fn plant(&mut self, slice: u64, events: u64, began: &Gauges) -> anyhow::Result<()> {
        match self.fault {
            None => {}
            Some(Fault::Memory) => self
                .leaked
                .extend((0..events).map(|_| vec![1; 64].into_boxed_slice())),
            Some(Fault::Descriptor) if slice == 0 => std::mem::forget(std::io::pipe()?),
            Some(Fault::Descriptor) => {}
            Some(Fault::Slow) => {
                let cost = Gauges::read()?.processor.saturating_sub(began.processor);
                gauge::burn(cost.mul_f64(slice as f64 / SLICES as f64));
            }
            Some(Fault::Hang) => loop {
                std::thread::park();
            },
        }
        Ok(())
    }

    /// Repeats the comparison if the speed is too low, because other load may be the reason. A new process
    /// runs the first tenth again, and this one another last tenth, a few times. A loop that has become slow
    /// stays slow.
    fn confirmed(&mut self, mut speed: f64, slice: u64, watchdog: &Watchdog) -> anyhow::Result<f64> {
        let slice = slice.min(COMPARED);
        for attempt in 1..=ATTEMPTS {
            if speed >= verdict::MAY_SLOW_DOWN {
                break;
            }
            println!(
                "the last tenth had {:.1} % of the speed of the first; comparison {attempt}",
                speed * 100.0
            );
            let mut anew = Command::new(std::env::current_exe().context("where is this program?")?);
            let output = watchdog.rest(|| anew.args(["--first-tenth", &slice.to_string()]).output())?;
            let first = String::from_utf8_lossy(&output.stdout);
            let first: f64 = first.trim().parse().context("a new process printed nothing")?;
            let last = self.slices(SLICES - TENTH..SLICES, slice, watchdog)?;
            speed = first / verdict::cost(&last);
        }
        Ok(speed)
    }
}
