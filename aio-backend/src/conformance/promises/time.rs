//! Timeouts, wake-ups and interruptions.
//!
//! No wait may be early. Of many waits only the best must be in time, because the machine may be busy.

use std::time::{Duration, Instant};

use super::super::disturb::{in_a_storm, in_a_storm_of, once_asleep};
use super::super::fixtures::{A, IN, Kind, Source, TIMEOUT, add, expect, feed, need, wait_at_most};
use crate::{Backend, Interest};

/// The largest delay of the best of many waits: below a millisecond, so that the test finds rounding to milliseconds.
const LATE: Duration = Duration::from_micros(650);
/// The number of attempts until one wait is in time.
const TRIES: u32 = 200;

/// Returns the duration of a wait without events.
#[track_caller]
fn empty_wait(backend: &mut dyn Backend, timeout: Duration) -> Duration {
    let start = Instant::now();
    let found = wait_at_most(backend, Some(timeout), 64);
    let took = start.elapsed();
    assert_eq!(found, [], "nothing was ready");
    assert!(
        took >= timeout,
        "a wait of {timeout:?} ended early, after {took:?}"
    );
    took
}

/// Asserts that no wait is early, and that each of several consecutive waits is in time at least once in many
/// tries.
#[track_caller]
fn punctual(backend: &mut dyn Backend, timeout: Duration) {
    let idle = Source::new(Kind::PipeReader);
    add(backend, &idle, A, Interest::READ);
    for _ in 0..10 {
        let mut best = Duration::MAX;
        for _ in 0..TRIES {
            best = best.min(empty_wait(backend, timeout));
            if best <= timeout + LATE {
                break;
            }
        }
        assert!(
            best <= timeout + LATE,
            "the best of {TRIES} waits of {timeout:?} took {best:?}, and {:?} are allowed",
            timeout + LATE
        );
    }
    need(backend.remove(A), "a remove");
}

pub(super) fn timeout_zero_only_checks(backend: &mut dyn Backend) {
    punctual(backend, Duration::ZERO);
    let best = (0..TRIES)
        .map(|_| empty_wait(backend, Duration::ZERO))
        .min()
        .unwrap_or_default();
    let allowed = Duration::from_micros(300);
    assert!(
        best <= allowed,
        "the best of {TRIES} checks took {best:?}, and {allowed:?} are allowed"
    );
}

pub(super) fn timeout_of_50_us(backend: &mut dyn Backend) {
    punctual(backend, Duration::from_micros(50));
}

pub(super) fn timeout_of_5_ms(backend: &mut dyn Backend) {
    punctual(backend, Duration::from_millis(5));
}

pub(super) fn timeout_never_early(backend: &mut dyn Backend) {
    let idle = Source::new(Kind::PipeReader);
    // Also if nothing is watched at all.
    empty_wait(backend, Duration::from_micros(700));
    add(backend, &idle, A, Interest::READ);
    for nanos in [
        1, 999, 50_000, 999_999, 1_000_000, 1_000_001, 1_999_999, 3_700_000,
    ] {
        for _ in 0..5 {
            empty_wait(backend, Duration::from_nanos(nanos));
        }
    }
}

pub(super) fn timeout_not_a_millisecond_late(backend: &mut dyn Backend) {
    punctual(backend, Duration::from_micros(300));
    punctual(backend, Duration::from_micros(2_100));
}

/// The delay of an event for which a wait without a timeout waits.
const A_WHILE: Duration = Duration::from_millis(150);

pub(super) fn no_timeout_waits_for_an_event(backend: &mut dyn Backend) {
    let reader = Source::new(Kind::PipeReader);
    add(backend, &reader, A, Interest::READ);
    for _ in 0..20 {
        let mouth = reader.mouth();
        let found = once_asleep(|| feed(mouth), || wait_at_most(backend, None, 64));
        assert_eq!(found, [(A, IN)], "a wait without a timeout ends with an event");
        reader.consume();
    }
    // A wait without a timeout does not end after a while, either.
    let mouth = reader.mouth();
    let late = || {
        std::thread::sleep(A_WHILE);
        feed(mouth);
    };
    let found = once_asleep(late, || wait_at_most(backend, None, 64));
    assert_eq!(
        found,
        [(A, IN)],
        "a wait without a timeout goes on until an event comes, here after {A_WHILE:?}"
    );
}

pub(super) fn an_event_ends_a_wait(backend: &mut dyn Backend) {
    let reader = Source::new(Kind::PipeReader);
    add(backend, &reader, A, Interest::READ);
    for millis in [2_000, 10_000] {
        let (start, mouth) = (Instant::now(), reader.mouth());
        let timeout = Duration::from_millis(millis);
        let found = once_asleep(|| feed(mouth), || wait_at_most(backend, Some(timeout), 64));
        let took = start.elapsed();
        assert_eq!(found, [(A, IN)], "a wait of {timeout:?} in which something comes");
        assert!(
            took < timeout * 3 / 4,
            "a wait of {timeout:?} was to end when something came, and took {took:?}"
        );
        // An event before the wait.
        let start = Instant::now();
        let found = wait_at_most(backend, Some(timeout), 64);
        assert_eq!(found, [(A, IN)], "a wait of {timeout:?} where something is ready");
        assert!(
            start.elapsed() < timeout * 3 / 4,
            "a wait of {timeout:?} slept though something was ready"
        );
        reader.consume();
    }
}

pub(super) fn a_timeout_beyond_all_time_is_no_error(backend: &mut dyn Backend) {
    let reader = Source::new(Kind::PipeReader);
    add(backend, &reader, A, Interest::READ);
    for timeout in [
        Duration::from_micros(59_999_999),
        Duration::from_secs(60),
        // The first is one more millisecond than an `int` holds; the others become nothing or a minute if
        // truncated.
        Duration::from_millis(1 << 31),
        Duration::from_millis(1 << 32),
        Duration::from_millis((1 << 32) + 1),
        Duration::from_secs(1 << 33),
        Duration::from_secs(1 << 40),
        Duration::from_secs(i64::MAX as u64),
        Duration::from_secs(1 << 63),
        Duration::MAX,
    ] {
        let mouth = reader.mouth();
        let found = once_asleep(|| feed(mouth), || wait_at_most(backend, Some(timeout), 64));
        assert_eq!(found, [(A, IN)], "a wait of {timeout:?} in which something comes");
        reader.consume();
    }
}

pub(super) fn interruptions_are_no_errors(backend: &mut dyn Backend) {
    let reader = Source::new(Kind::PipeReader);
    add(backend, &reader, A, Interest::READ);
    assert_waits_end_between_signals(backend);
    in_a_storm(|| {
        for _ in 0..100 {
            // The wait may end early here, but without events.
            let found = wait_at_most(backend, Some(Duration::from_millis(1)), 64);
            assert_eq!(found, [], "a signal came, and nothing was ready");
        }
        for _ in 0..100 {
            reader.feed();
            expect(backend, &[(A, IN)], "something is ready, signal or not");
            let found = wait_at_most(backend, Some(TIMEOUT), 64);
            assert_eq!(found, [(A, IN)], "something is ready still, signal or not");
            reader.consume();
        }
        for timeout in [None, Some(TIMEOUT)] {
            let (start, mouth) = (Instant::now(), reader.mouth());
            let found = once_asleep(
                || feed(mouth),
                || loop {
                    let found = wait_at_most(backend, timeout, 64);
                    if !found.is_empty() || start.elapsed() > TIMEOUT {
                        return found;
                    }
                },
            );
            assert_eq!(found, [(A, IN)], "something comes between the signals");
            reader.consume();
        }
    });
}

/// Asserts that a wait ends even if it continues after each signal: its remaining time gets shorter.
fn assert_waits_end_between_signals(backend: &mut dyn Backend) {
    const SHORT: Duration = Duration::from_millis(20);
    /// The signals take at least ten times as long.
    const SIGNALS: u32 = 4_000;
    let ends = || in_a_storm_of(SIGNALS, || wait_at_most(backend, Some(SHORT), 64)).1;
    assert!(
        std::iter::repeat_with(ends).take(3).any(|has_ended| has_ended),
        "a wait of {SHORT:?} did not end before {SIGNALS} signals had come, 50 us or more apart; expected that what is left of its time \
         gets shorter"
    );
}
