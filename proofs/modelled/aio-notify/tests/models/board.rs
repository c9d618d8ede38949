//! Models of the board, and the faults that they must find.

use std::sync::{Arc, atomic};

use loom::thread;

use crate::modelling::{block, faults, models, to_the_end};
use aio_checker::{AtomicU32, Ordering};
use aio_notify::{Board, EventNotifier};

/// A loop that sleeps on a flag, as an inbox with a notifier does, and its board.
struct Shared {
    board: Board,
    woken: EventNotifier,
    /// The number of rings of source 0, the next one included. The checker tries no orders of it.
    rings: atomic::AtomicU32,
    /// The number that source 0 has published.
    mail: AtomicU32,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            board: Board::new(2),
            woken: EventNotifier::new().unwrap(),
            rings: atomic::AtomicU32::new(0),
            mail: AtomicU32::new(0),
        })
    }

    fn ring(&self, source: usize) {
        self.board.ring(source, || self.woken.set().unwrap());
    }

    fn sleep(&self) {
        block(&self.woken);
        self.woken.test_and_clear().unwrap();
    }

    fn serve(&self, mut each: impl FnMut(usize)) {
        while let Some(source) = self.board.find(0) {
            assert!(self.board.take(source));
            each(source);
        }
    }

    /// Runs a loop until `done`. It sleeps, or polls before it sleeps.
    fn run(&self, polls: bool, mut each: impl FnMut(usize), done: impl Fn() -> bool) {
        loop {
            if polls {
                self.board.disarm();
                self.serve(&mut each);
            }
            self.board.arm();
            self.serve(&mut each);
            if done() {
                return;
            }
            self.sleep();
        }
    }
}

fn two_sources(polls: bool) {
    let shared = Shared::new();
    let ringers: Vec<_> = (0..2)
        .map(|source| {
            let shared = shared.clone();
            thread::spawn(move || shared.ring(source))
        })
        .collect();
    let got = std::cell::Cell::new([0; 2]);
    let count = |source: usize| {
        let mut counts = got.get();
        counts[source] += 1;
        got.set(counts);
    };
    shared.run(polls, count, || got.get() == [1, 1]);
    ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
}

/// One source rings twice. The second ring is not lost, at any point of the loop's handling of the first.
fn one_source_twice(polls: bool) {
    let shared = Shared::new();
    let ringer = {
        let shared = shared.clone();
        thread::spawn(move || {
            for ring in 1..=2 {
                shared.rings.store(ring, Ordering::Relaxed);
                shared.ring(0);
            }
        })
    };
    // Two rings may be one; the second is never served before the first.
    let seen = std::cell::Cell::new(0);
    shared.run(
        polls,
        |_| seen.set(shared.rings.load(Ordering::Relaxed)),
        || seen.get() == 2,
    );
    ringer.join().unwrap();
}

fn two_sources_of_a_loop_that_polls() {
    two_sources(true);
}

fn two_sources_of_a_loop_that_sleeps() {
    two_sources(false);
}

fn one_source_twice_of_a_loop_that_polls() {
    one_source_twice(true);
}

fn one_source_twice_of_a_loop_that_sleeps() {
    one_source_twice(false);
}

/// Data that is published before a ring is visible when the ring is taken.
fn publishes() {
    let shared = Shared::new();
    let ringer = {
        let shared = shared.clone();
        thread::spawn(move || {
            shared.mail.store(7, Ordering::Relaxed);
            shared.board.ring(0, || {});
        })
    };
    let mut got = 0;
    if shared.board.find(0).is_some() && shared.board.take(0) {
        got = shared.mail.load(Ordering::Relaxed);
        assert_eq!(got, 7);
    }
    ringer.join().unwrap();
    assert!(got == 7 || shared.board.take(0));
}

/// The same with two rings, which may be one: data published before the last ring is visible when that is
/// taken.
fn publishes_twice() {
    let shared = Shared::new();
    let ringer = {
        let shared = shared.clone();
        thread::spawn(move || {
            for value in 1..=2 {
                shared.mail.store(value, Ordering::Relaxed);
                shared.board.ring(0, || {});
            }
        })
    };
    let mut got = 0;
    let mut take = || {
        if shared.board.take(0) {
            got = shared.mail.load(Ordering::Relaxed);
        }
    };
    take();
    take();
    ringer.join().unwrap();
    take();
    assert_eq!(got, 2);
}

models! { to_the_end:
    n2_every_ring_publishes => publishes_twice;
    n2_every_ring_wakes_a_loop_that_polls => one_source_twice_of_a_loop_that_polls;
    n2_every_ring_wakes_a_loop_that_sleeps => one_source_twice_of_a_loop_that_sleeps;
    n2_a_ring_publishes => publishes;
}

models! { loom::model:
    n2_a_ring_of_either_source_wakes_a_loop_that_polls => two_sources_of_a_loop_that_polls;
    n2_a_ring_of_either_source_wakes_a_loop_that_sleeps => two_sources_of_a_loop_that_sleeps;
}

faults! {
    n2_planted_ring_without_fence: RingWithoutFence in two_sources_of_a_loop_that_polls two_sources_of_a_loop_that_sleeps;
    n2_planted_arm_without_fence: ArmWithoutFence in two_sources_of_a_loop_that_polls two_sources_of_a_loop_that_sleeps;
    n2_planted_end_any_epoch: EndAnyEpoch in two_sources_of_a_loop_that_polls;
    n2_planted_epoch_goes_on: EpochGoesOn in two_sources_of_a_loop_that_sleeps one_source_twice_of_a_loop_that_sleeps;
    n2_planted_take_relaxed: TakeRelaxed in publishes;
    n2_planted_ring_relaxed: RingRelaxed in publishes;
}
