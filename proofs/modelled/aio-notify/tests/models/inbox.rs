//! Models of posting, and the faults that they must find: nodes and messages on their way to a loop.

use std::sync::{Arc, atomic};

use loom::cell::UnsafeCell;
use loom::thread;

use crate::modelling::{Shared, faults, further, message, models, runs, to_the_end};
use aio_checker::{AtomicU32, Ordering};
use aio_notify::{Dequeued, Item, Node, RunQueue, Urgency};

/// One node that is scheduled repeatedly: a run follows the last schedule. The visibility of other memory is
/// tested below, without a thread that sleeps. Here the checker tries no orders of that memory, nor of the
/// hint of urgency, because these are many.
fn rescheduled() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    let latest = Arc::new(atomic::AtomicU32::new(0));
    let poster = {
        let (shared, node, latest) = (shared.clone(), node.clone(), latest.clone());
        thread::spawn(move || {
            for value in 1..=2 {
                latest.store(value, Ordering::Relaxed);
                shared.inbox.post(&node, Urgency::Idle);
                shared.notifier.notify();
            }
        })
    };
    let seen = std::cell::Cell::new(0);
    let mut began = 0;
    shared.run(
        |dequeued| {
            began += 1;
            if matches!(dequeued.begin(), Item::Idle) {
                seen.set(latest.load(Ordering::Relaxed));
            }
        },
        || seen.get() == 2,
    );
    poster.join().unwrap();
    assert!(began <= 2, "no more runs than schedules");
}

/// The same node without a thread that sleeps: the run after the last schedule reads the data written before
/// it.
fn rescheduled_awake() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    let latest = Arc::new(AtomicU32::new(0));
    let poster = {
        let (shared, node, latest) = (shared.clone(), node.clone(), latest.clone());
        thread::spawn(move || {
            for value in 1..=2 {
                latest.store(value, Ordering::Relaxed);
                shared.inbox.post(&node, Urgency::Normal);
            }
        })
    };
    let (mut seen, mut began) = (0, 0);
    let mut each = |dequeued| {
        began += 1;
        if runs(dequeued) {
            seen = latest.load(Ordering::Relaxed);
        }
    };
    shared.take(&mut each);
    shared.take(&mut each);
    poster.join().unwrap();
    shared.take(&mut each);
    assert_eq!(seen, 2);
    assert!(began <= 2, "no more runs than schedules");
}

/// Data that a poster wrote before it posted is visible when the node runs, without any other
/// synchronisation.
fn publishes() {
    let shared = Shared::<UnsafeCell<u32>>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || {
            let node = Node::new(UnsafeCell::new(0));
            // SAFETY: no other thread has the node yet.
            node.payload().with_mut(|value| unsafe { *value = 7 });
            shared.inbox.post(&node, Urgency::Normal);
        })
    };
    let got = std::cell::Cell::new(0);
    // SAFETY: the model checks that the write happens before this read.
    let read = |value: &UnsafeCell<u32>| got.set(value.with(|value| unsafe { *value }));
    let mut each = |dequeued: Dequeued<_>| dequeued.payload().into_iter().for_each(read);
    shared.take(&mut each);
    poster.join().unwrap();
    shared.take(&mut each);
    assert_eq!(got.get(), 7);
}

/// Two threads schedule one node at the same time. It is pushed once, and runs once or twice.
fn scheduled_by_two() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    let posters: Vec<_> = (0..2)
        .map(|_| {
            let (shared, node) = (shared.clone(), node.clone());
            thread::spawn(move || shared.post(&node))
        })
        .collect();
    let mut ran = 0;
    shared.notifier.accept();
    shared.take(&mut |dequeued| ran += u32::from(runs(dequeued)));
    for poster in posters {
        poster.join().unwrap();
    }
    shared.take(&mut |dequeued| ran += u32::from(runs(dequeued)));
    assert!((1..=2).contains(&ran), "ran {ran} times");
}

/// The home thread and another one schedule the same node. It is in one list, once, and the last run reads
/// the data that either wrote before it scheduled.
fn scheduled_at_home_too() {
    let shared = Shared::<()>::new();
    let (node, written) = (Node::new(()), Arc::new(AtomicU32::new(0)));
    let schedule = |number: u32| {
        let (shared, node, written) = (shared.clone(), node.clone(), written.clone());
        move || {
            written.fetch_or(number, Ordering::Relaxed);
            shared.inbox.post(&node, Urgency::Normal);
        }
    };
    let poster = thread::spawn(schedule(1));
    let (mut ran, mut seen) = (0, 0);
    let mut run = |dequeued| {
        if runs(dequeued) {
            ran += 1;
            seen = written.load(Ordering::Relaxed);
        }
    };
    schedule(2)();
    shared.take(&mut run);
    schedule(4)();
    poster.join().unwrap();
    shared.take(&mut run);
    shared.take(&mut run);
    assert_eq!(seen, 7);
    assert!((1..=3).contains(&ran), "ran {ran} times");
}

/// A post at home after a post by another thread comes after it, and the reverse.
fn in_order_at_home() {
    let shared = Shared::<u32>::new();
    let turn = Arc::new(AtomicU32::new(0));
    let (first, second, third) = (Node::new(1), Node::new(2), Node::new(3));
    shared.post(&first);
    let poster = {
        let (shared, turn, second) = (shared.clone(), turn.clone(), second.clone());
        thread::spawn(move || {
            shared.post(&second);
            turn.store(1, Ordering::Release);
        })
    };
    let has_heard = turn.load(Ordering::Acquire) == 1;
    shared.post(&third);
    let mut order: Vec<u32> = Vec::new();
    let mut run = |dequeued: Dequeued<u32>| order.extend(dequeued.payload());
    shared.take(&mut run);
    poster.join().unwrap();
    shared.take(&mut run);
    let in_turn = order == [1, 2, 3];
    assert!(in_turn || (!has_heard && order == [1, 3, 2]), "{order:?}");
}

/// Another thread drops the last handle while the node is scheduled. The node never runs afterwards, and is
/// returned once.
fn retired_while_scheduled() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    shared.post(&node);
    let owner = {
        let shared = shared.clone();
        thread::spawn(move || shared.retire(node))
    };
    let (ran, returned) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    shared.run(
        |dequeued| match dequeued.begin() {
            Item::Retired(()) => returned.set(returned.get() + 1),
            Item::Normal => {
                assert_eq!(returned.get(), 0, "runs after it came back");
                ran.set(ran.get() + 1);
            }
            Item::Idle | Item::Cancelled => {}
            Item::Sent(_) => panic!("no message was sent"),
        },
        || returned.get() == 1,
    );
    owner.join().unwrap();
    assert!(ran.get() <= 1);
}

/// Two threads drop their handles at the same time, after use. The node is returned once, and dropped after
/// both.
fn retired_by_two() {
    let shared = Shared::<Used>::new();
    let node = Node::new(Used::default());
    let owners: Vec<_> = [node.clone(), node]
        .into_iter()
        .map(|node| {
            let shared = shared.clone();
            thread::spawn(move || {
                node.payload().read();
                shared.retire(node);
            })
        })
        .collect();
    let returned = std::cell::Cell::new(0);
    shared.run(
        |dequeued| {
            assert!(
                matches!(dequeued.begin(), Item::Retired(_)),
                "it was not scheduled"
            );
            returned.set(returned.get() + 1);
        },
        || returned.get() == 1,
    );
    for owner in owners {
        owner.join().unwrap();
    }
}

/// Two threads drop their handles at the same time, after use, without an inbox. The later one drops the
/// payload.
fn dropped_by_two() {
    let node = Node::<_, ()>::new(Used::default());
    let owner = {
        let node = node.clone();
        thread::spawn(move || node.payload().read())
    };
    node.payload().read();
    drop(node);
    owner.join().unwrap();
}

/// The last handle is dropped while the loop begins the node. One of the two drops the payload.
fn dropped_while_it_begins() {
    let shared = Shared::<Used>::new();
    let node = Node::new(Used::default());
    shared.post(&node);
    let owner = thread::spawn(move || {
        node.payload().read();
        drop(node);
    });
    shared.take(&mut |dequeued| {
        dequeued.payload().into_iter().for_each(Used::read);
        drop(dequeued.begin());
    });
    owner.join().unwrap();
}

/// A payload for which the model checks that every use happens before the drop, and that there is one drop:
/// two would be concurrent writes, or a use of freed memory.
#[derive(Default)]
struct Used(UnsafeCell<u32>);

impl Used {
    fn read(&self) {
        // SAFETY: the model checks that no thread writes at the same time.
        assert_eq!(self.0.with(|value| unsafe { *value }), 0);
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the model checks that this is after every use.
            self.0.with_mut(|value| unsafe { *value += 1 });
        }
    }
}

/// A cancel races the loop: the node runs at most once, and a schedule after the cancel is not lost.
fn cancelled() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    shared.post(&node);
    let canceller = {
        let (shared, node) = (shared.clone(), node.clone());
        thread::spawn(move || {
            node.cancel();
            shared.post(&node);
        })
    };
    let mut ran = 0;
    shared.take(&mut |dequeued| ran += u32::from(runs(dequeued)));
    canceller.join().unwrap();
    shared.take(&mut |dequeued| ran += u32::from(runs(dequeued)));
    assert!((1..=2).contains(&ran), "ran {ran} times");
}

/// A poster races the end of the context: the message is taken, returned by the close, or refused. Nothing
/// leaks.
fn closed_while_posting() {
    let shared = Shared::<u32>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || !shared.send(1))
    };
    let mut queue = RunQueue::new();
    shared.inbox.close(&mut queue);
    let got = queue.pop().map_or(0, message);
    let refused = poster.join().unwrap();
    assert!(queue.is_empty() && got + u32::from(refused) == 1);
    assert!(!shared.inbox.pending());
}

models! { to_the_end:
    h1_scheduled_at_home_and_elsewhere => scheduled_at_home_too;
    h2_scheduled_while_it_runs_awake => rescheduled_awake;
    case_56_published_before_it_runs => publishes;
    h5_cancelled_against_the_runner => cancelled;
    h3_in_order_at_home_and_elsewhere => in_order_at_home;
    h6_retired_while_scheduled => retired_while_scheduled;
    h6_dropped_while_it_begins => dropped_while_it_begins;
    h7_closed_while_posting => closed_while_posting;
}

models! { further:
    h2_scheduled_while_it_runs => rescheduled;
}

models! { loom::model:
    h1_scheduled_by_two_threads_at_once => scheduled_by_two;
    h6_retired_by_two_threads_at_once => retired_by_two;
    h6_dropped_by_two_threads_at_once => dropped_by_two;
}

faults! {
    h1_planted_publish_relaxed: PublishRelaxed in publishes;
    h1_planted_detach_relaxed: DetachRelaxed in publishes;
    h1_planted_push_twice: PushTwice in scheduled_by_two;
    h1_planted_want_relaxed: WantRelaxed in rescheduled_awake;
    h2_planted_begin_relaxed: BeginRelaxed in rescheduled_awake;
    h6_planted_begin_relaxed: BeginRelaxed in dropped_while_it_begins;
    h3_planted_home_overtakes: HomeOvertakes in in_order_at_home;
    h6_planted_release_relaxed: ReleaseRelaxed in dropped_by_two;
    h6_planted_retire_relaxed: RetireRelaxed in retired_by_two;
    h6_planted_retire_in_two_steps: RetireInTwoSteps in retired_by_two;
    h2_planted_begin_in_two_steps: BeginInTwoSteps in rescheduled_awake;
    h2_planted_begin_keeps_queued: BeginKeepsQueued in rescheduled_awake;
}
