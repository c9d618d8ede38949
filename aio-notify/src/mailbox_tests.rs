//! Mailboxes on one thread and a second one: when a post notifies.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::*;
use crate::{Item, RunQueue};

fn mailbox() -> Mailbox<u32> {
    Mailbox::new().expect("there is a descriptor left")
}

/// Runs `work` on another thread, and waits for it.
fn elsewhere<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"))
}

/// Posts, sends and retires. Returns whether each has notified.
fn post_all(mailbox: &Mailbox<u32>) -> [bool; 3] {
    let (posted, retired) = (Node::new(1), Node::new(2));
    mailbox.accept();
    mailbox.post(&posted, Urgency::Normal);
    let by_post = mailbox.accept();
    assert!(mailbox.send(Box::new(Message::new(3))).is_ok());
    let by_send = mailbox.accept();
    mailbox.retire(retired);
    [by_post, by_send, mailbox.accept()]
}

#[test]
fn n1_a_post_notifies_unless_the_home_thread_reads_the_inbox_before_it_waits() {
    let mailbox = mailbox();
    assert_eq!(post_all(&mailbox), [false; 3]);
    assert_eq!(elsewhere(|| post_all(&mailbox)), [true; 3]);
    let outer = mailbox.plan_guard();
    drop(mailbox.plan_guard());
    assert_eq!(post_all(&mailbox), [true; 3], "the outer plan stands");
    drop(outer);
    assert_eq!(post_all(&mailbox), [false; 3]);
    mailbox.set_foreign(true);
    assert_eq!(post_all(&mailbox), [true; 3]);
    mailbox.set_foreign(false);
    assert_eq!(post_all(&mailbox), [false; 3]);
}

#[test]
fn n1_a_change_at_home_notifies_only_a_loop_that_is_about_to_wait() {
    let mailbox = mailbox();
    mailbox.notify_if_about_to_wait();
    assert!(!mailbox.is_about_to_wait() && !mailbox.is_notified());
    let plan = mailbox.plan_guard();
    mailbox.notify_if_about_to_wait();
    assert!(mailbox.is_about_to_wait() && mailbox.accept());
    drop(plan);
    mailbox.set_foreign(true);
    mailbox.notify_if_about_to_wait();
    assert!(mailbox.accept());
}

#[test]
fn h7_a_closed_inbox_refuses_and_does_not_notify() {
    let (mailbox, mut queue) = (mailbox(), RunQueue::new());
    mailbox.inbox().close(&mut queue);
    let node = Node::new(1);
    elsewhere(|| {
        assert_eq!(mailbox.post(&node, Urgency::Normal), Posted::Closed);
        let refused = mailbox.send(Box::new(Message::new(2))).unwrap_err();
        assert_eq!(refused.contents, 2);
        mailbox.retire(node);
    });
    assert!(!mailbox.is_notified());
    assert_eq!(mailbox.wakeups(), (0, 0));
}

#[test]
fn w1_a_kick_notifies_as_long_as_there_is_a_guard() {
    let mailbox = mailbox();
    let is_kicked = || {
        elsewhere(|| mailbox.kick());
        mailbox.accept()
    };
    assert!(!is_kicked());
    let outer = mailbox.wait_guard();
    let inner = mailbox.wait_guard();
    assert!(is_kicked());
    drop(outer);
    assert!(is_kicked(), "guards are counted");
    drop(inner);
    assert!(!is_kicked());
    mailbox.notify();
    assert!(mailbox.accept(), "a notification needs no guard");
    assert_eq!(
        mailbox.interrupts(),
        2,
        "a kick without effect, and a notification, are none"
    );
    elsewhere(|| mailbox.interrupt());
    assert!(mailbox.accept() && mailbox.interrupts() == 3);
}

/// Rule D4: posts before an interrupt are served before the wait returns for it.
#[test]
fn d4_an_interrupt_is_served_once_what_came_before_it_was_accepted() {
    let (mailbox, seen) = (mailbox(), Cell::new(0));
    let is = |before| mailbox.interrupted_since(before, &seen);
    elsewhere(|| mailbox.notify());
    assert_eq!(
        (is(0), seen.get()),
        (Interrupted::No, 0),
        "a notification is none"
    );
    elsewhere(|| mailbox.interrupt());
    assert_eq!((is(0), seen.get()), (Interrupted::Unserved, 0));
    assert!(mailbox.accept());
    assert_eq!((is(0), seen.get()), (Interrupted::Served, 1));
    // A wait inside another one has returned for it. The outer wait finds it all the same.
    assert_eq!((is(1), is(0)), (Interrupted::No, Interrupted::Served));
    elsewhere(|| (0..3).for_each(|_| mailbox.interrupt()));
    assert_eq!((is(1), seen.get()), (Interrupted::Unserved, 1));
    assert!(mailbox.accept());
    assert_eq!(
        (is(1), seen.get(), is(4)),
        (Interrupted::Served, 4, Interrupted::No)
    );
}

#[test]
fn d10_a_stop_interrupts_and_is_taken_once() {
    let (mailbox, seen) = (mailbox(), Cell::new(0));
    assert!(!mailbox.take_stop());
    elsewhere(|| (0..2).for_each(|_| mailbox.stop()));
    assert!(mailbox.is_notified() && mailbox.accept());
    assert_eq!(mailbox.interrupted_since(0, &seen), Interrupted::Served);
    assert!(mailbox.take_stop() && !mailbox.take_stop());
}

#[test]
fn n2_a_wait_that_panics_is_over() {
    let mailbox = mailbox();
    assert!(mailbox.prepare_to_wait());
    let waited = catch_unwind(AssertUnwindSafe(|| {
        let _sleep = mailbox.sleep_guard();
        elsewhere(|| mailbox.notify());
        std::panic::resume_unwind(Box::new("the backend panics"));
    }));
    assert!(waited.is_err() && !mailbox.is_notified());
    mailbox.notify();
    assert_eq!(mailbox.wakeups(), (1, 1), "no wait is announced any more");
}

#[test]
fn h3_posts_and_messages_arrive_in_order() {
    let (mailbox, node) = (mailbox(), Node::new(1));
    elsewhere(|| {
        mailbox.post(&node, Urgency::Normal);
        assert!(mailbox.send(Box::new(Message::new(2))).is_ok());
    });
    assert!(mailbox.accept());
    let mut queue = RunQueue::new();
    queue.take(mailbox.inbox());
    assert!(matches!(queue.pop().unwrap().begin(), Item::Normal));
    let Item::Sent(message) = queue.pop().unwrap().begin() else {
        panic!("it was sent")
    };
    assert_eq!(message.contents, 2);
    assert!(mailbox.home().is_here() && !elsewhere(|| mailbox.home().is_here()));
}

/// Returns a clock that advances by a microsecond with each reading.
fn ticking() -> impl Fn() -> Duration {
    let ticks = Cell::new(0);
    move || {
        ticks.set(ticks.get() + 1);
        Duration::from_micros(ticks.get())
    }
}

#[test]
fn n6_a_loop_outlasts_no_write_without_a_limit() {
    let mailbox = mailbox();
    assert!(!mailbox.is_being_written());
    assert!(!mailbox.outlast_write(ticking()), "nothing came");
    mailbox.notify();
    assert!(mailbox.outlast_write(ticking()));
    assert!(mailbox.is_notified(), "it is not accepted");
}
