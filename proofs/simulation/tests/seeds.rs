//! Ten thousand seeds of a thousand steps each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};

use aio_simulation::run;

const SEEDS: u64 = 10_000;
const STEPS: u64 = 1_000;

#[test]
fn everything_is_served_whatever_fails() {
    let first = aio_testing::seed();
    let [next, callbacks, operations, faults] = [(); 4].map(|()| AtomicU64::new(0));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= SEEDS {
                    return;
                }
                let summary = run(first.wrapping_add(seed), STEPS, None, false, false)
                    .unwrap_or_else(|failure| panic!("{failure}"));
                callbacks.fetch_add(summary.callbacks, Ordering::Relaxed);
                operations.fetch_add(summary.operations, Ordering::Relaxed);
                faults.fetch_add(summary.faults, Ordering::Relaxed);
            }
        };
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let [callbacks, operations, faults] = [callbacks, operations, faults].map(AtomicU64::into_inner);
    let steps = SEEDS * STEPS;
    println!("{steps} steps, {callbacks} callbacks, {operations} operations, {faults} faults");
    // A simulation without events would find nothing.
    assert!(
        callbacks > SEEDS * 100 && operations > SEEDS * 5 && faults > SEEDS * 20,
        "{callbacks} {operations} {faults}"
    );
}

#[test]
fn a_seed_does_the_same_every_time() {
    let first = aio_testing::seed();
    for seed in (0..50).map(|number| first.wrapping_add(number)) {
        let digests = [0, 1].map(|_| run(seed, STEPS, None, false, false).unwrap().digest);
        assert_eq!(digests[0], digests[1], "AIO_SEED={seed}");
    }
}
