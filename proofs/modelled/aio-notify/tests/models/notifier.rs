//! Models of notifications, and the faults that they must find.
//!
//! Each model is a small program of a loop and its posters. The checker runs it in every possible order,
//! including weak memory. A lost wake-up shows as a deadlock. Models block, they never spin.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::modelling::{Shared, block, faults, further, message, models, run, to_the_end};
use aio_checker::{AtomicBool, AtomicU32, Ordering};
use aio_notify::Notifier;

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
        |dequeued| got.borrow_mut().push(message(dequeued)),
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

/// A wait inside a wait: after the end of the inner one, the outer one still receives notifications.
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
            block(&shared.notifier);
            shared.notifier.finish_wait();
        }
        shared.notifier.finish_wait();
    }
    shared.take(&mut |dequeued| got.set(message(dequeued)));
    if got.get() == 0 {
        shared.run(|dequeued| got.set(message(dequeued)), || got.get() == 1);
    }
    poster.join().unwrap();
}

/// A foreign loop waits on behalf of this one: it sets the flag, checks, and blocks.
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
            block(&shared.notifier);
        }
        shared.notifier.set_foreign(false);
        shared.notifier.accept();
        shared.take(&mut |dequeued| got = message(dequeued));
    }
    poster.join().unwrap();
}

/// If the loop is awake when the notification arrives, there is no write, and the loop does not sleep through
/// it.
fn elided() {
    let shared = Shared::<usize>::new();
    shared.send(1);
    assert_eq!(shared.notifier.writes(), 0);
    let poster = {
        let shared = shared.clone();
        thread::spawn(move || shared.send(2))
    };
    let got = std::cell::Cell::new(0);
    shared.run(
        |dequeued| got.set(got.get() + message(dequeued)),
        || got.get() == 3,
    );
    poster.join().unwrap();
    assert!(shared.notifier.writes() <= 1);
}

/// Data written before a notification is visible after the notification is accepted, without an inbox.
fn notified_publishes() {
    let shared = Arc::new((Notifier::new().unwrap(), UnsafeCell::new(0)));
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

/// Two notifications, about a number instead of an inbox.
fn two_notifications() {
    let shared = Arc::new((Notifier::new().unwrap(), AtomicU32::new(0)));
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
    run(notifier, || number.load(Ordering::Relaxed) == 2);
    poster.join().unwrap();
}

/// The reason for this checker: a load comes before a write, or after it, even if the writer has loaded
/// before.
#[test]
fn h1_both_orders_of_a_load_and_a_write_are_tried() {
    let seen = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let all = seen.clone();
    loom::model(move || {
        let flag = Arc::new(AtomicBool::new(false));
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

models! { to_the_end:
    n2_nested_waits => nested;
    n5_foreign_loop => foreign;
    n1_elided_write => elided;
    n1_a_notification_publishes => notified_publishes;
}

models! { further:
    case_67_no_lost_wake_up_one_by_two => one_by_two;
    case_67_no_lost_wake_up_of_two => two_notifications;
}

models! { loom::model:
    case_68_no_notification_cleared_unseen_two_by_one => two_by_one;
    n1_n2_no_lost_wake_up_two_by_two => two_by_two;
}

faults! {
    n2_planted_notify_without_fence: NotifyWithoutFence in two_notifications;
    n2_planted_prepare_without_fence: PrepareWithoutFence in two_notifications;
    n2_planted_prepare_without_recheck: PrepareWithoutRecheck in two_notifications;
    n1_planted_notify_relaxed: NotifyRelaxed in notified_publishes;
    n2_planted_accept_relaxed: AcceptRelaxed in notified_publishes;
    n5_planted_foreign_without_fence: ForeignWithoutFence in foreign;
    n1_planted_notify_swapped: NotifySwapped in two_notifications;
    n4_planted_skip_when_notified: SkipWhenNotified in two_notifications;
    n4_planted_accept_after_work: AcceptAfterWork in one_by_two;
    n4_planted_accept_in_two_steps: AcceptInTwoSteps in two_notifications;
    h1_planted_home_is_everywhere: HomeIsEverywhere in two_by_one;
}
