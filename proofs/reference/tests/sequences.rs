//! Twenty thousand sequences of sixty operations, each on every backend and in a foreign loop.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use aio_reference::{Tally, USUAL, run_seed};

const SEQUENCES: u64 = 20_000;

/// Where the seeds begin: `AIO_SEED`, or anywhere.
fn first() -> u64 {
    let given = std::env::var("AIO_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = given.unwrap_or_else(|| fastrand::u64(..1 << 48));
    println!("AIO_SEED={first}");
    first
}

#[test]
fn the_loop_matches_the_reference() {
    let first = first();
    let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let sequence = next.fetch_add(1, Ordering::Relaxed);
                if sequence >= SEQUENCES {
                    return;
                }
                let seed = first + sequence;
                let summary = run_seed(seed, USUAL, None)
                    .unwrap_or_else(|difference| panic!("AIO_SEED={seed}: {difference}"));
                tally.lock().unwrap().add(&summary.tally);
            }
        };
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let tally = tally.into_inner().unwrap();
    println!("{tally:?}");
    // Sequences in which something never happens would find nothing about it.
    for (kind, count) in tally.iter() {
        let least = match kind {
            "busy" => 0,
            "refused" | "poll" => SEQUENCES / 20,
            "broken" => SEQUENCES / 5,
            _ => SEQUENCES,
        };
        assert!(count >= least, "{kind}: {count}");
    }
}
