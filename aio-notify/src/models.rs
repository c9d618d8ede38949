//! The models, and the faults that they must find.
//!
//! Each model is a small program of a loop and its posters. The checker runs it in every order that it can have, weak
//! memory included; a lost wake-up shows as a deadlock. Models block, they never spin.

use loom::cell::UnsafeCell;
use loom::thread;

use crate::modelling::{Shared, further, message, models, runs};
use crate::planting::must_be_found;
use crate::sync::{AtomicBool, AtomicU32, Fault, Ordering};
use crate::{Line, Node, Notifier, Run, Taken, Urgency};

/// Posters that send `each` messages, and a loop that waits for all.
fn posters(threads: usize, each: usize) {
    let shared = Shared::<usize>::new();
    let posters: Vec<_> = (0..threads)
        .map(|poster| {
            let shared = shared.clone();
            thread::spawn(move || {
                for message in 0..each {
                    shared.send(poster * 10 + message);
                }
            })
        })
        .collect();
    let got = std::cell::RefCell::new(Vec::new());
    shared.run(
        |taken| got.borrow_mut().push(message(taken)),
        || got.borrow().len() == threads * each,
    );
    for poster in posters {
        poster.join().unwrap();
    }
    for poster in 0..threads {
        let of_one: Vec<usize> = got
            .borrow()
            .iter()
            .copied()
            .filter(|message| message / 10 == poster)
            .collect();
        assert_eq!(
            of_one,
            (0..each).map(|message| poster * 10 + message).collect::<Vec<_>>(),
            "in order, once"
        );
    }
}

fn one_by_two() {
    posters(1, 2);
}

fn two_by_one() {
    posters(2, 1);
}

fn two_by_two() {
    posters(2, 2);
}

/// One node that is scheduled again and again: the run that follows the last schedule sees what was written before it.
fn rescheduled() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    let latest = loom::sync::Arc::new(AtomicU32::new(0));
    let poster = {
        let (shared, node, latest) = (shared.clone(), node.clone(), latest.clone());
        thread::spawn(move || {
            for value in 1..=2 {
                latest.store(value, Ordering::Relaxed);
                shared.post(&node);
            }
        })
    };
    let seen = std::cell::Cell::new(0);
    let mut began = 0;
    shared.run(
        |taken| {
            began += 1;
            if runs(taken) {
                seen.set(latest.load(Ordering::Relaxed));
            }
        },
        || seen.get() == 2,
    );
    poster.join().unwrap();
    assert!(began <= 2, "no more runs than schedules");
}

/// The same node without anybody who sleeps: small enough to be tried to its end.
fn rescheduled_awake() {
    let shared = Shared::<()>::new();
    let node = Node::new(());
    let latest = loom::sync::Arc::new(AtomicU32::new(0));
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
    let mut each = |taken| {
        began += 1;
        if runs(taken) {
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

/// What a poster wrote before it posted is there when the node runs, without any other synchronisation.
fn publishes() {
    let shared = Shared::<UnsafeCell<u32>>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || {
            let node = Node::new(UnsafeCell::new(0));
            // SAFETY: nobody else has the node yet.
            node.payload().with_mut(|value| unsafe { *value = 7 });
            shared.post(&node);
        })
    };
    let got = std::cell::Cell::new(0);
    // SAFETY: the model checks that the write happens before this read.
    let read = |value: &UnsafeCell<u32>| got.set(value.with(|value| unsafe { *value }));
    shared.run(
        |taken| taken.payload().into_iter().for_each(read),
        || got.get() == 7,
    );
    poster.join().unwrap();
}

/// Two threads schedule one node at the same time: it is pushed once, and runs once or twice.
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
    shared.take(&mut |taken| ran += u32::from(runs(taken)));
    for poster in posters {
        poster.join().unwrap();
    }
    shared.take(&mut |taken| ran += u32::from(runs(taken)));
    assert!((1..=2).contains(&ran), "ran {ran} times");
}

/// The home thread and another one schedule the same node: it is in one list, once, and the last run sees what either wrote before
/// it scheduled.
fn scheduled_at_home_too() {
    let shared = Shared::<()>::new();
    let (node, written) = (Node::new(()), loom::sync::Arc::new(AtomicU32::new(0)));
    let schedule = |number: u32| {
        let (shared, node, written) = (shared.clone(), node.clone(), written.clone());
        move || {
            written.fetch_or(number, Ordering::Relaxed);
            shared.post(&node);
        }
    };
    let poster = thread::spawn(schedule(1));
    let (mut ran, mut seen) = (0, 0);
    let mut run = |taken| {
        if runs(taken) {
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

/// Who has heard of a post from another thread, and posts at home then, comes after it; and the other way round.
fn in_order_at_home() {
    let shared = Shared::<u32>::new();
    let turn = loom::sync::Arc::new(AtomicU32::new(0));
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
    let mut run = |taken: Taken<u32>| order.extend(taken.payload());
    shared.take(&mut run);
    poster.join().unwrap();
    shared.take(&mut run);
    let in_turn = order == [1, 2, 3];
    assert!(in_turn || (!has_heard && order == [1, 3, 2]), "{order:?}");
}

/// Another thread gives up the last handle while the node is scheduled: it never runs after, and comes back once.
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
        |taken| match taken.begin() {
            Run::Retired(()) => returned.set(returned.get() + 1),
            Run::Normal => {
                assert_eq!(returned.get(), 0, "runs after it came back");
                ran.set(ran.get() + 1);
            }
            Run::Idle | Run::No => {}
            Run::Sent(_) => panic!("nobody sends"),
        },
        || returned.get() == 1,
    );
    owner.join().unwrap();
    assert!(ran.get() <= 1);
}

/// Two threads give up their handles at the same time, after use: the node comes back once, to be dropped after both.
fn retired_by_two() {
    let shared = Shared::<Used>::new();
    let node = Node::new(Used::default());
    let owners: Vec<_> = [node.clone(), node]
        .into_iter()
        .map(|node| {
            let shared = shared.clone();
            thread::spawn(move || {
                node.payload().look();
                shared.retire(node);
            })
        })
        .collect();
    let returned = std::cell::Cell::new(0);
    shared.run(
        |taken| {
            assert!(matches!(taken.begin(), Run::Retired(_)), "nobody scheduled it");
            returned.set(returned.get() + 1);
        },
        || returned.get() == 1,
    );
    for owner in owners {
        owner.join().unwrap();
    }
}

/// Two threads drop their handles at the same time, after use, with no inbox at all: the later one drops the payload.
fn dropped_by_two() {
    let node = Node::<_, ()>::new(Used::default());
    let owner = {
        let node = node.clone();
        thread::spawn(move || node.payload().look())
    };
    node.payload().look();
    drop(node);
    owner.join().unwrap();
}

/// The last handle is dropped while the loop begins the node: one of the two drops the payload.
fn dropped_while_it_begins() {
    let shared = Shared::<Used>::new();
    let node = Node::new(Used::default());
    shared.post(&node);
    let owner = thread::spawn(move || {
        node.payload().look();
        drop(node);
    });
    shared.take(&mut |taken| {
        taken.payload().into_iter().for_each(Used::look);
        drop(taken.begin());
    });
    owner.join().unwrap();
}

/// A payload for which the model checks that every use happens before the drop. Dropped once: twice would be two writes at once,
/// or a use of freed memory.
#[derive(Default)]
struct Used(UnsafeCell<u32>);

impl Used {
    fn look(&self) {
        // SAFETY: the model checks that nobody writes meanwhile.
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

/// Cancelling races the loop: at most one run, and a schedule after the cancel is not lost.
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
    shared.take(&mut |taken| ran += u32::from(runs(taken)));
    canceller.join().unwrap();
    shared.take(&mut |taken| ran += u32::from(runs(taken)));
    assert!((1..=2).contains(&ran), "ran {ran} times");
}

/// A poster races the end of the context: the message is taken, handed out by the close, or refused; nothing leaks.
fn closed_while_posting() {
    let shared = Shared::<u32>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || !shared.send(1))
    };
    let mut line = Line::new();
    shared.inbox.close(&mut line);
    let got = line.pop().map_or(0, message);
    let refused = poster.join().unwrap();
    assert!(line.is_empty() && got + u32::from(refused) == 1);
    assert!(!shared.inbox.pending());
}

/// A wait inside a wait: when the inner one is over, the outer one still hears.
fn nested() {
    let shared = Shared::<usize>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || shared.send(1))
    };
    let outer = shared.notifier.prepare_to_wait();
    let got = std::cell::Cell::new(0);
    if outer {
        if shared.notifier.prepare_to_wait() {
            shared.notifier.block();
            shared.notifier.finish_wait();
        }
        shared.notifier.finish_wait();
    }
    shared.run(|taken| got.set(message(taken)), || got.get() == 1);
    poster.join().unwrap();
}

/// A foreign loop waits on behalf of this one: it sets the flag, looks, and blocks.
fn foreign() {
    let shared = Shared::<usize>::new();
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || shared.send(1))
    };
    let mut got = 0;
    while got == 0 {
        shared.notifier.set_foreign(true);
        if !shared.notifier.is_notified() {
            shared.notifier.block();
        }
        shared.notifier.set_foreign(false);
        shared.notifier.accept();
        shared.take(&mut |taken| got = message(taken));
    }
    poster.join().unwrap();
}

/// A loop that is awake when the notification comes pays no ring, and does not sleep through it.
fn elided() {
    let shared = Shared::<usize>::new();
    shared.send(1);
    assert_eq!(shared.notifier.writes(), 0);
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || shared.send(2))
    };
    let got = std::cell::Cell::new(0);
    shared.run(|taken| got.set(got.get() + message(taken)), || got.get() == 3);
    poster.join().unwrap();
    assert!(shared.notifier.writes() <= 1);
}

/// What was written before a notification is there once it is accepted, without an inbox.
fn notified_publishes() {
    let shared = loom::sync::Arc::new((Notifier::new().unwrap(), UnsafeCell::new(0)));
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || {
            // SAFETY: the model checks that this write happens before the read.
            shared.1.with_mut(|value| unsafe { *value = 7 });
            shared.0.notify();
        })
    };
    if shared.0.accept() {
        // SAFETY: as above.
        assert_eq!(shared.1.with(|value| unsafe { *value }), 7);
    }
    poster.join().unwrap();
}

/// Two notifications of what is a number here, instead of an inbox: small enough to be tried to its end.
fn two_notifications() {
    let shared = loom::sync::Arc::new((Notifier::new().unwrap(), AtomicU32::new(0)));
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || {
            for value in 1..=2 {
                shared.1.store(value, Ordering::Relaxed);
                shared.0.notify();
            }
        })
    };
    let (notifier, number) = &*shared;
    loop {
        notifier.accept();
        if number.load(Ordering::Relaxed) == 2 {
            break;
        }
        if notifier.prepare_to_wait() {
            notifier.block();
            notifier.finish_wait();
        }
    }
    poster.join().unwrap();
}

/// What the checker is for: a load comes before a write, or after it, even if the writer has loaded before.
#[test]
fn h1_both_orders_of_a_load_and_a_write_are_tried() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let all = seen.clone();
    loom::model(move || {
        let flag = loom::sync::Arc::new(AtomicBool::new(false));
        let writer = {
            let flag = flag.clone();
            thread::spawn(move || {
                let was = flag.load(Ordering::Relaxed);
                let _ = flag.compare_exchange(was, true, Ordering::Relaxed, Ordering::Relaxed);
            })
        };
        let before = flag.load(Ordering::Relaxed);
        writer.join().unwrap();
        all.lock().unwrap().insert(before);
    });
    assert_eq!(seen.lock().unwrap().len(), 2);
}

models! { further:
    case_67_no_lost_wake_up_one_by_two => one_by_two;
    case_67_no_lost_wake_up_of_two => two_notifications;
    h2_scheduled_while_it_runs_awake => rescheduled_awake;
    n2_nested_waits => nested;
    n5_foreign_loop => foreign;
    n1_elided_write => elided;
    n1_a_notification_publishes => notified_publishes;
    case_56_published_before_it_runs => publishes;
    h2_scheduled_while_it_runs => rescheduled;
    h5_cancelled_against_the_runner => cancelled;
    h1_scheduled_at_home_and_elsewhere => scheduled_at_home_too;
    h3_in_order_at_home_and_elsewhere => in_order_at_home;
    h6_retired_while_scheduled => retired_while_scheduled;
    h6_dropped_while_it_begins => dropped_while_it_begins;
    h7_closed_while_posting => closed_while_posting;
}

models! { loom::model:
    case_68_no_notification_cleared_unseen_two_by_one => two_by_one;
    n1_n2_no_lost_wake_up_two_by_two => two_by_two;
    h1_scheduled_by_two_threads_at_once => scheduled_by_two;
    h6_retired_by_two_threads_at_once => retired_by_two;
    h6_dropped_by_two_threads_at_once => dropped_by_two;
}

macro_rules! faults {
    ($($name:ident: $fault:ident in $($model:ident)*;)*) => {
        $(#[test] fn $name() {
            must_be_found(concat!(module_path!(), "::", stringify!($name)), &format!("{:?}", Fault::$fault), &[$(|| loom::model($model)),*]);
        })*
    };
}

faults! {
    n2_planted_notify_without_fence: NotifyWithoutFence in one_by_two;
    n2_planted_prepare_without_fence: PrepareWithoutFence in one_by_two;
    n2_planted_prepare_without_recheck: PrepareWithoutRecheck in one_by_two;
    n1_planted_notify_relaxed: NotifyRelaxed in notified_publishes;
    n2_planted_accept_relaxed: AcceptRelaxed in notified_publishes;
    n5_planted_foreign_without_fence: ForeignWithoutFence in foreign;
    n1_planted_notify_swapped: NotifySwapped in one_by_two;
    n4_planted_skip_when_notified: SkipWhenNotified in one_by_two two_by_one;
    n4_planted_accept_after_work: AcceptAfterWork in one_by_two;
    n4_planted_accept_in_two_steps: AcceptInTwoSteps in one_by_two two_by_one;
    h1_planted_publish_relaxed: PublishRelaxed in publishes;
    h1_planted_detach_relaxed: DetachRelaxed in publishes;
    h1_planted_push_twice: PushTwice in scheduled_by_two;
    h1_planted_want_relaxed: WantRelaxed in rescheduled;
    h2_planted_begin_relaxed: BeginRelaxed in rescheduled;
    h6_planted_begin_relaxed: BeginRelaxed in dropped_while_it_begins;
    h3_planted_home_overtakes: HomeOvertakes in in_order_at_home;
    h1_planted_home_is_everywhere: HomeIsEverywhere in two_by_one;
    h6_planted_release_relaxed: ReleaseRelaxed in dropped_by_two;
    h6_planted_retire_relaxed: RetireRelaxed in retired_by_two;
    h6_planted_retire_in_two_steps: RetireInTwoSteps in retired_by_two;
    h2_planted_begin_in_two_steps: BeginInTwoSteps in rescheduled;
    h2_planted_begin_keeps_queued: BeginKeepsQueued in rescheduled;
}
