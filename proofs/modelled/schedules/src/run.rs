//! Runs a scenario in many orders, and repeats one of them.

use aio_checker::kernel::Kernel;
use aio_checker::planting;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// The default numbers of orders: random ones, and orders with few preemptions.
const ORDERS: [(&str, usize); 2] = [("AIO_RANDOM", 20_000), ("AIO_PCT", 20_000)];
/// The number of preemptions of the latter, plus one.
const DEPTH: usize = 3;
/// The number of steps above which a run counts as an endless loop.
const LONGEST: usize = 20_000;
const STACK: usize = 256 * 1024;

/// Runs a scenario in many orders of its steps. Everything that it opened must be closed after each of them.
///
/// A failure prints its order, which `AIO_SCHEDULE` repeats; `AIO_SEED` repeats all of them. Returns `true`
/// if there were many.
///
/// # Panics
/// If the scenario fails, sleeps for ever, or loops without end.
pub fn check(scenario: fn()) -> bool {
    let whole = move || {
        scenario();
        assert_eq!(Kernel::of_this_run().open_files(), 0, "descriptors are left");
    };
    if let Ok(schedule) = std::env::var("AIO_SCHEDULE") {
        run(ReplayScheduler::new_from_encoded(&schedule), whole);
        return false;
    }
    let seed = number("AIO_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("AIO_SEED={seed}; one order alone: AIO_SCHEDULE='the failing schedule'");
    // A planted fault ends the search when it is found.
    let factor = if planting::is_any_planted() { 20 } else { 1 };
    let [random, pct] =
        ORDERS.map(|(name, usual)| factor * number(name).map_or(usual, |number| number as usize));
    run(PctScheduler::new_from_seed(seed, DEPTH, pct), whole);
    run(RandomScheduler::new_from_seed(seed, random), whole);
    true
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(LONGEST);
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(scenario);
}
