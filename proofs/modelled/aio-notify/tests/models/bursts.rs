//! Models of bursts (rule N6), and the faults that they must find: when a notification of a waiting loop need
//! not write.

use std::sync::Arc;

use loom::thread;

use crate::modelling::{block, faults, further, models, run, to_the_end};
use aio_checker::hooks::{self, Step, Trace};
use aio_checker::{AtomicU32, Ordering};
use aio_notify::Notifier;

/// A notifier, and one number for each poster, published without further ordering.
struct Shared {
    notifier: Notifier,
    numbers: [AtomicU32; 2],
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            notifier: Notifier::new().unwrap(),
            numbers: [AtomicU32::new(0), AtomicU32::new(0)],
        })
    }

    fn post(&self, poster: usize, number: u32) {
        self.numbers[poster].store(number, Ordering::Relaxed);
        self.notifier.notify();
    }

    fn is(&self, poster: usize, number: u32) -> bool {
        self.numbers[poster].load(Ordering::Relaxed) == number
    }

    /// Starts a thread that runs `prepare` and then posts 1, 2, ... up to `last`.
    fn poster(self: &Arc<Self>, poster: usize, last: u32, prepare: fn()) -> thread::JoinHandle<()> {
        let shared = self.clone();
        thread::spawn(move || {
            prepare();
            (1..=last).for_each(|number| shared.post(poster, number));
        })
    }
}

fn unprepared() {}

/// A loop that may sleep between any notifications of one poster.
fn burst(length: u32) {
    let shared = Shared::new();
    let poster = shared.poster(0, length, unprepared);
    run(&shared.notifier, || shared.is(0, length));
    poster.join().unwrap();
}

fn burst_of_two() {
    burst(2);
}

fn burst_of_three() {
    burst(3);
}

/// Two posters notify a loop that has announced its wait and does not run. Each writes at most once, and a
/// third notification writes nothing.
fn burst_of_two_posters() {
    let shared = Shared::new();
    assert!(shared.notifier.prepare_to_wait());
    let posters = [0, 1].map(|poster| shared.poster(poster, 2, unprepared));
    block(&shared.notifier);
    posters.into_iter().for_each(|poster| poster.join().unwrap());
    let writes = shared.notifier.writes();
    assert!((1..=2).contains(&writes));
    shared.notifier.notify();
    assert_eq!(shared.notifier.writes(), writes, "a write has finished");
    shared.notifier.finish_wait();
    assert!(!shared.notifier.is_notified());
}

/// The same, with a loop that runs as soon as it can.
fn two_posters_of_a_loop_that_runs() {
    let shared = Shared::new();
    let posters = [0, 1].map(|poster| shared.poster(poster, 1, unprepared));
    run(&shared.notifier, || shared.is(0, 1) && shared.is(1, 1));
    posters.into_iter().for_each(|poster| poster.join().unwrap());
}

/// A thread that is stopped between announcing a write and writing delays only its own notification.
fn stopped_before_its_write() {
    let shared = Shared::new();
    let stopped = shared.poster(0, 1, hooks::stop_before_write);
    let other = shared.poster(1, 1, unprepared);
    run(&shared.notifier, || shared.is(1, 1));
    hooks::go_on();
    if !shared.is(0, 1) {
        run(&shared.notifier, || shared.is(0, 1));
    }
    stopped.join().unwrap();
    other.join().unwrap();
}

/// If the loop does not run, a notification writes nothing once another one of the same thread has returned,
/// independent of other threads.
fn one_write_for_each_thread() {
    let shared = Shared::new();
    shared.notifier.set_foreign(true);
    let other = shared.poster(0, 1, unprepared);
    shared.notifier.accept();
    shared.notifier.notify();
    let writes = hooks::writes_of_this_thread();
    shared.notifier.notify();
    assert_eq!(hooks::writes_of_this_thread(), writes);
    other.join().unwrap();
}

/// The loop accepts while the only poster is writing. The poster writes once more only if the loop has
/// drained the first write.
fn one_write_for_each_drain() {
    let shared = Shared::new();
    shared.notifier.set_foreign(true);
    let poster = shared.poster(0, 2, hooks::stop_before_write);
    hooks::wait_until_stopped();
    assert!(shared.notifier.is_being_written(), "the write has not returned");
    hooks::go_on_after_drain();
    shared.notifier.accept();
    poster.join().unwrap();
    assert!(!shared.notifier.is_being_written(), "it has");
    assert!(shared.notifier.writes() <= 1 + hooks::drained_by_this_thread());
}

/// A foreign loop's flag stays set while the loop accepts and checks, as in a poll by another source of the
/// foreign loop. Then the foreign loop blocks. The home thread may have notified before.
fn accepts_while_a_foreign_loop_waits(is_notified: bool) {
    let shared = Shared::new();
    shared.notifier.set_foreign(true);
    if is_notified {
        shared.notifier.notify();
    }
    let poster = shared.poster(0, 2, unprepared);
    loop {
        shared.notifier.accept();
        if shared.is(0, 2) {
            break;
        }
        block(&shared.notifier);
    }
    shared.notifier.set_foreign(false);
    poster.join().unwrap();
}

fn two_for_a_foreign_loop() {
    accepts_while_a_foreign_loop_waits(false);
}

fn two_more_for_a_foreign_loop() {
    accepts_while_a_foreign_loop_waits(true);
}

/// An outer wait stays announced while an inner one begins and ends. Then the outer one blocks.
fn accepts_inside_a_wait() {
    let shared = Shared::new();
    let poster = shared.poster(0, 2, unprepared);
    if shared.notifier.prepare_to_wait() {
        run(&shared.notifier, || !shared.is(0, 0));
        while !shared.is(0, 2) {
            block(&shared.notifier);
            shared.notifier.accept();
        }
        shared.notifier.finish_wait();
    } else {
        run(&shared.notifier, || shared.is(0, 2));
    }
    poster.join().unwrap();
}

/// A write with a number of drains comes after the drain that it counts.
fn a_write_comes_after_the_drain() {
    let (shared, drains) = (Shared::new(), Arc::new(Trace::default()));
    shared.notifier.set_foreign(true);
    shared.notifier.notify();
    let poster = {
        let (shared, drains) = (shared.clone(), drains.clone());
        thread::spawn(move || {
            hooks::trace(Step::ReadsBeforeWrite, &drains);
            // Writes only if the first write was drained.
            shared.notifier.notify();
        })
    };
    hooks::trace(Step::ChangesAfterDrain, &drains);
    shared.notifier.accept();
    poster.join().unwrap();
}

/// A notification that writes nothing comes after a write.
fn nothing_is_written_after_a_write() {
    let (shared, writes) = (Shared::new(), Arc::new(Trace::default()));
    shared.notifier.set_foreign(true);
    let poster = {
        let (shared, writes) = (shared.clone(), writes.clone());
        thread::spawn(move || {
            hooks::trace(Step::ChangesAfterWrite, &writes);
            shared.notifier.notify();
        })
    };
    shared.notifier.notify();
    if hooks::writes_of_this_thread() == 0 {
        writes.read();
    }
    poster.join().unwrap();
}

models! { to_the_end:
    n6_a_thread_writes_once_until_the_loop_runs => one_write_for_each_thread;
    n6_a_drain_that_finds_nothing_changes_nothing => one_write_for_each_drain;
    n6_n5_two_accepted_while_a_foreign_loop_waits => two_for_a_foreign_loop;
    n6_n5_two_more_accepted_while_a_foreign_loop_waits => two_more_for_a_foreign_loop;
    n6_a_write_comes_after_the_drain_that_it_counts => a_write_comes_after_the_drain;
    n6_nothing_is_written_only_after_a_write => nothing_is_written_after_a_write;
}

models! { further:
    n6_a_burst_of_two => burst_of_two;
    n6_n2_accepted_inside_a_wait => accepts_inside_a_wait;
}

models! { loom::model:
    n6_a_burst_of_three => burst_of_three;
    n6_a_burst_of_two_posters => burst_of_two_posters;
    n6_two_posters_of_a_loop_that_runs => two_posters_of_a_loop_that_runs;
    n6_a_thread_that_stops_before_its_write => stopped_before_its_write;
}

faults! {
    n6_planted_skip_when_announced: SkipWhenAnnounced in stopped_before_its_write;
    n6_planted_finished_before_write: FinishedBeforeWrite in stopped_before_its_write;
    n6_planted_finished_before_write_in_order: FinishedBeforeWrite in nothing_is_written_after_a_write;
    n6_planted_finished_relaxed: FinishedRelaxed in nothing_is_written_after_a_write;
    n6_planted_empty_drain_stored: EmptyDrainStored in one_write_for_each_drain;
    n6_planted_finished_any_drain: FinishedAnyDrain in burst_of_two;
    n6_planted_drained_read_late: DrainedReadLate in burst_of_two;
    n6_planted_drained_stored_early: DrainedStoredEarly in two_more_for_a_foreign_loop;
    n6_planted_drained_relaxed: DrainedRelaxed in a_write_comes_after_the_drain;
    n6_planted_drained_unacquired: DrainedUnacquired in a_write_comes_after_the_drain;
    n6_n5_planted_accept_without_fence: AcceptWithoutFence in two_for_a_foreign_loop;
    n6_n2_planted_accept_without_fence: AcceptWithoutFence in accepts_inside_a_wait;
    n6_n4_planted_skip_when_notified: SkipWhenNotified in burst_of_two;
    n6_n4_planted_accept_after_work: AcceptAfterWork in burst_of_two;
    n6_n2_planted_prepare_without_fence: PrepareWithoutFence in burst_of_two;
    n6_n1_planted_notify_without_fence: NotifyWithoutFence in burst_of_two;
}
