//! Twenty thousand sequences of sixty operations, each on every backend and in a foreign loop.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use aio_reference::{Setup, Tally, USUAL, check, run_seed};

const SEQUENCES: u64 = 20_000;

#[test]
fn the_loop_matches_the_reference() {
    let first = aio_testing::seed();
    let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let sequence = next.fetch_add(1, Ordering::Relaxed);
                if sequence >= SEQUENCES {
                    return;
                }
                let seed = first.wrapping_add(sequence);
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
            "broken" | "priority" => SEQUENCES / 5,
            _ => SEQUENCES,
        };
        assert!(count >= least, "{kind}: {count}");
    }
}

/// After an interrupt, a notification by a callback makes the loop do one more iteration without waiting, which the log does not show: the
/// reference cannot know which of the two called a handler, and so whether the notification is still there.
#[test]
fn d4_a_notification_may_be_accepted_by_an_iteration_that_the_log_does_not_show() {
    let trace = "bh x; watch e r in g polled; on e.poll { idle y }; bh y; on y { pause zz, resume zz }; schedule x; polling 5; \
                 wait 12; kick e; wait 25; wait 2";
    let setup = Setup::by_name("ppoll/always").unwrap();
    check(setup, trace).unwrap();
}

/// A number that is closed behind the loop's back takes a handler without an interest, because no backend asks the system; the next one is
/// refused.
#[test]
fn r3_r4_a_closed_number_takes_a_handler_without_an_interest() {
    let trace = "timer t; watch e w in g polled; closeraw e; on t { replace e e - polled, replace e e r polled }; arm t 0; wait 24";
    for name in ["epoll/kvm", "epoll/never", "ppoll/kvm"] {
        check(Setup::by_name(name).unwrap(), trace).unwrap();
    }
}
