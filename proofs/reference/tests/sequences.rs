//! Twenty thousand sequences of sixty operations, each on every backend and in a foreign loop.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use aio_reference::{Setup, Tally, USUAL, Waiter, check, run_seed};

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
    // If an event never happens, the sequences are no evidence about it.
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

/// After an interrupt, a notification by a callback causes one more iteration without waiting, which the log
/// does not show. The reference cannot determine which of the two called a handler, and so whether the
/// notification is still pending.
#[test]
fn d4_a_notification_may_be_accepted_by_an_iteration_that_the_log_does_not_show() {
    let trace = "bh x; watch e r in g polled; on e.poll { idle y }; bh y; on y { pause zz, resume zz }; schedule x; polling 5; \
                 wait 12; kick e; wait 25; wait 2";
    let setup = Setup::by_name("ppoll/always").unwrap();
    check(setup, trace).unwrap();
}

/// A number that is closed without a removal accepts a handler without an interest, because no backend calls
/// the system. The next handler is refused.
#[test]
fn r3_r4_a_closed_number_takes_a_handler_without_an_interest() {
    let trace = "timer t; watch e w in g polled; closeraw e; on t { replace e e - polled, replace e e r polled }; arm t 0; wait 24";
    for name in ["epoll/kvm", "epoll/never", "ppoll/kvm"] {
        check(Setup::by_name(name).unwrap(), trace).unwrap();
    }
}

/// An event that is reported once, was found and was not delivered, is not delivered for a level-triggered
/// interest that is set afterwards. The backend, armed again, reports the present readiness.
#[test]
fn r14_an_event_found_once_is_not_kept_for_a_level() {
    for trace in [
        "watch a rp1 in g; work a; bh z; on z { panic }; idle z; poll; interest a r; drain a; wait 24",
        "watch c r in g polled; on c.readable { interest a r, drain a, poll }; kick a; watch a r1; kick c; wait 15",
        "watch a r1; on e.readable { drain a, panic }; watch e r in g polled; work e; kick a; poll; interest a r; wait 12",
    ] {
        for waiter in Waiter::ALL {
            check(Setup::new(waiter, 0), trace).unwrap();
        }
    }
}

/// An event that may have been collected for a paused handler masks it only if it was collected.
#[test]
fn b5_an_event_that_may_have_been_collected_masks_a_paused_handler_perhaps() {
    for (name, trace) in [
        (
            "ppoll/learned-2",
            "bh x; polling 1000; watch a r1 in g polled; work a; wait 7; pause g; wait 20; kick a; idle x; wait 14",
        ),
        (
            "ppoll/always",
            "polling 20000; watch a rwp1 in g polled; watch e r1 polled; work e; wait 8; polling 0; pause zz; poll; wait 14; work a; \
             polling 50; kick e; wait 12; wait 24",
        ),
    ] {
        check(Setup::by_name(name).unwrap(), trace).unwrap();
    }
}

/// A notification ends polling before a hit; the next iteration, which the log does not show, polls again.
#[test]
fn d4_an_iteration_that_the_log_does_not_show_finds_what_a_bottom_half_has_left() {
    for (name, trace) in [
        (
            "ppoll/ewma",
            "bh x; watch c r1 polled; watch e r polled; on a.poll { work c }; on e.poll { idle x }; watch a r polled; on x { work e }; \
             polling 50; poll; wait 9",
        ),
        (
            "ppoll/fixed",
            "bh x; polling 5; watch a - polled; watch e p in g polled; watch d r1 polled; on x { work e }; on a.begin { remove a }; poll; \
             on e.poll { work d, idle x }; wait 28",
        ),
    ] {
        check(Setup::by_name(name).unwrap(), trace).unwrap();
    }
}

/// An event of an iteration that the log does not show comes after the polling time of that iteration.
#[test]
fn d4_an_event_after_some_time_is_one_of_the_next_iteration() {
    let trace = "polling 20000; on a.end { kick a, bh y, idle y }; watch a r1 in h polled; wait 19; on a.begin { replace a aa r }; wait 15";
    check(Setup::by_name("ppoll/ski-rental").unwrap(), trace).unwrap();
}

/// A check finds a closed number, whose handler panics, and also an event that is reported once. That event
/// is kept.
#[test]
fn d9_an_event_found_beside_a_closed_number_is_kept_through_a_panic() {
    let trace = "watch c r in h polled; watch a rwp in h polled; on c.invalidated { panic }; closeraw c; work a; replace a a r1 polled; \
                 poll; drain a; poll";
    check(Setup::by_name("ppoll/never").unwrap(), trace).unwrap();
}

/// A ring that has ended leaves no file open, so a number that is closed later disturbs no epoll set.
#[test]
fn b7_a_ring_that_has_ended_keeps_no_file() {
    for _ in 0..20 {
        check(Setup::new(Waiter::Uring, 0), "watch a p; poll; kick a").unwrap();
        check(
            Setup::new(Waiter::Foreign, 0),
            "watch a w polled; closeraw a; replace a aa polled; wait 14",
        )
        .unwrap();
    }
}
