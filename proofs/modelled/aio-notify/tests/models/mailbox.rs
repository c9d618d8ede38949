//! Models of mailboxes, and the faults that they must find: kicks of waiters, and messages.

use std::sync::Arc;

use loom::thread;

use crate::modelling::{block, faults, further, message, models, to_the_end};
use aio_checker::{AtomicU32, Ordering};
use aio_notify::{Mailbox, Message, RunQueue};

type Numbers = Mailbox<u32>;

fn mailbox() -> Arc<Numbers> {
    Arc::new(Numbers::new().unwrap())
}

/// Waits once, like a loop without work.
fn wait(mailbox: &Numbers) {
    if mailbox.prepare_to_wait() {
        let _sleep = mailbox.sleep_guard();
        block(mailbox);
    } else {
        mailbox.accept();
    }
}

/// Waits until `kickers` threads have changed something. Each of them kicks after its change.
fn kicks(kickers: u32) {
    let (mailbox, changes) = (mailbox(), Arc::new(AtomicU32::new(0)));
    let kickers: Vec<_> = (0..kickers)
        .map(|_| {
            let (mailbox, changes) = (mailbox.clone(), changes.clone());
            thread::spawn(move || {
                changes.fetch_add(1, Ordering::Relaxed);
                mailbox.kick();
            })
        })
        .collect();
    let guard = mailbox.wait_guard();
    while (changes.load(Ordering::Relaxed) as usize) < kickers.len() {
        wait(&mailbox);
    }
    drop(guard);
    kickers.into_iter().for_each(|kicker| kicker.join().unwrap());
}

fn one_kick() {
    kicks(1);
}

fn two_kicks() {
    kicks(2);
}

/// A waiter inside another one: a kick after the end of the inner one wakes the outer one.
fn nested_waiters() {
    let (mailbox, changes) = (mailbox(), Arc::new(AtomicU32::new(0)));
    let kicker = {
        let (mailbox, changes) = (mailbox.clone(), changes.clone());
        thread::spawn(move || {
            for change in 1..=2 {
                changes.store(change, Ordering::Relaxed);
                mailbox.kick();
            }
        })
    };
    for (guard, change) in [(mailbox.wait_guard(), 1), (mailbox.wait_guard(), 2)] {
        let inner = mailbox.wait_guard();
        while changes.load(Ordering::Relaxed) < change {
            wait(&mailbox);
        }
        drop((inner, guard));
    }
    kicker.join().unwrap();
}

/// A message wakes a sleeping loop, after it is in the inbox.
fn sent() {
    let mailbox = mailbox();
    let sender = {
        let mailbox = mailbox.clone();
        thread::spawn(move || mailbox.send(Box::new(Message::new(7))).is_ok())
    };
    // It reads the inbox only after a notification or a sleep.
    let mut queue = RunQueue::new();
    let got = loop {
        wait(&mailbox);
        queue.take(mailbox.inbox());
        if let Some(dequeued) = queue.pop() {
            break message(dequeued);
        }
    };
    assert_eq!(got, 7);
    assert!(sender.join().unwrap());
}

/// An interrupt ends a wait, and is visible as soon as its notification is accepted.
fn interrupted() {
    let mailbox = mailbox();
    let other = {
        let mailbox = mailbox.clone();
        thread::spawn(move || mailbox.interrupt())
    };
    while mailbox.interrupts() == 0 {
        wait(&mailbox);
    }
    other.join().unwrap();
}

models! { to_the_end:
    d4_no_interrupt_is_missed => interrupted;
    w1_no_kick_is_missed => one_kick;
    h7_no_message_is_missed => sent;
}

models! { further:
    w1_no_kick_is_missed_by_the_outer_of_two_waiters => nested_waiters;
}

models! { loom::model:
    w1_no_kick_of_two_is_missed => two_kicks;
}

faults! {
    d4_planted_interrupt_counted_late: InterruptCountedLate in interrupted;
    w1_planted_kick_without_fence: KickWithoutFence in one_kick;
    w1_planted_counted_without_fence: CountedWithoutFence in one_kick;
    h7_planted_notified_before_sent: NotifiedBeforeSent in sent;
}
