//! The inbox and its nodes on one thread, and under load on several.

use std::sync::atomic::AtomicU64;
use std::thread;

use super::*;
use crate::{Notifier, Run};

fn take<T: Copy>(inbox: &Inbox<T>) -> Vec<(Run, T)> {
    let mut taken = Vec::new();
    inbox.take_all(&mut |node| taken.push((node.begin(), *node.payload())));
    taken
}

#[test]
fn h1_scheduled_twice_runs_once() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::Queued);
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::AlreadyQueued);
    assert_eq!(take(&inbox), [(Run::Normal, 1)]);
    assert!(take(&inbox).is_empty());
}

#[test]
fn h3_first_in_first_out() {
    let inbox = Inbox::new();
    let nodes: Vec<_> = (0..100).map(Node::new).collect();
    for node in &nodes {
        inbox.post(node, Urgency::Normal);
    }
    let order: Vec<i32> = take(&inbox).into_iter().map(|(_, value)| value).collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
}

#[test]
fn h2_scheduled_while_it_runs_is_for_the_next_take() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    inbox.post(&node, Urgency::Normal);
    let mut runs = 0;
    inbox.take_all(&mut |node| {
        assert_eq!(node.begin(), Run::Normal);
        assert_eq!(inbox.post(&node, Urgency::Normal), Posted::Queued);
        runs += 1;
    });
    assert_eq!((runs, take(&inbox).len()), (1, 1));
}

#[test]
fn h2_scheduled_between_take_and_begin_is_one_run() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    inbox.post(&node, Urgency::Normal);
    inbox.take_all(&mut |node| {
        assert_eq!(inbox.post(&node, Urgency::Normal), Posted::AlreadyQueued);
        assert_eq!(node.begin(), Run::Normal);
    });
    assert!(take(&inbox).is_empty());
}

#[test]
fn h5_cancelled_does_not_run_unless_scheduled_again() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    inbox.post(&node, Urgency::Normal);
    node.cancel();
    assert!(!node.is_scheduled());
    assert_eq!(take(&inbox), [(Run::No, 1)]);
    inbox.post(&node, Urgency::Normal);
    node.cancel();
    inbox.post(&node, Urgency::Normal);
    assert_eq!(take(&inbox), [(Run::Normal, 1)]);
}

#[test]
fn h6_deleted_then_scheduled_is_not_called_and_is_buried_once() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    inbox.post(&node, Urgency::Normal);
    node.delete();
    inbox.post(&node, Urgency::Normal);
    assert_eq!(take(&inbox), [(Run::Deleted, 1)]);
    inbox.post(&node, Urgency::Normal);
    assert_eq!(take(&inbox), [(Run::No, 1)]);
}

#[test]
fn h8_a_normal_schedule_wins_over_idle_in_either_order() {
    for order in [[Urgency::Normal, Urgency::Idle], [Urgency::Idle, Urgency::Normal]] {
        let (inbox, node) = (Inbox::new(), Node::new(1));
        for urgency in order {
            inbox.post(&node, urgency);
        }
        assert!(inbox.has_normal());
        assert_eq!(take(&inbox), [(Run::Normal, 1)]);
    }
}

#[test]
fn h8_idle_alone_has_no_hurry() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    inbox.post(&node, Urgency::Idle);
    assert!(inbox.pending() && !inbox.has_normal());
    assert_eq!(take(&inbox), [(Run::Idle, 1)]);
}

#[test]
fn h7_what_is_sent_arrives_as_the_only_share_or_comes_back() {
    let inbox = Inbox::new();
    assert_eq!(inbox.send(String::from("one")), Ok(()));
    let mut got = None;
    inbox.take_all(&mut |node| {
        got = (node.begin() == Run::Normal)
            .then(|| node.into_payload())
            .flatten()
    });
    assert_eq!(got.as_deref(), Some("one"));
    inbox.close(&mut |_| panic!("it is empty"));
    assert_eq!(inbox.send(String::from("two")), Err(String::from("two")));
}

#[test]
fn h9_closing_hands_out_what_is_left_and_refuses_the_rest() {
    let (inbox, node, other) = (Inbox::new(), Node::new(1), Node::new(2));
    inbox.post(&node, Urgency::Normal);
    let mut left = Vec::new();
    inbox.close(&mut |node| left.push(*node.payload()));
    assert_eq!(left, [1]);
    assert_eq!(inbox.post(&other, Urgency::Normal), Posted::Closed);
    assert_eq!(inbox.post(&other, Urgency::Normal), Posted::Closed);
    assert!(!inbox.pending() && Arc::strong_count(&other) == 1);
    inbox.take_all(&mut |_| panic!("it is closed"));
    assert_eq!(
        inbox.post(&other, Urgency::Normal),
        Posted::Closed,
        "taking does not open it"
    );
}

#[test]
fn h7_a_dropped_inbox_drops_what_was_never_taken() {
    let (inbox, payload) = (Inbox::new(), Arc::new(()));
    for _ in 0..10 {
        inbox.send(payload.clone()).unwrap();
    }
    drop(inbox);
    assert_eq!(Arc::strong_count(&payload), 1);
}

/// Fault F2: what it has published is late, nothing else is, and the loop is as it was.
#[test]
fn case_82_a_poster_that_stops_before_it_notifies() {
    let (notifier, inbox) = (Notifier::new().unwrap(), Inbox::new());
    let [stopped, other, again] = [1, 2, 3].map(Node::new);
    inbox.post(&stopped, Urgency::Normal);
    assert!(notifier.prepare_to_wait(), "nobody has told the loop: it sleeps");
    inbox.post(&other, Urgency::Normal);
    notifier.notify();
    notifier.finish_wait();
    assert_eq!(
        take(&inbox),
        [(Run::Normal, 1), (Run::Normal, 2)],
        "in their order"
    );
    assert!(notifier.prepare_to_wait());
    // It goes on, and tells of what is done.
    notifier.notify();
    notifier.finish_wait();
    assert!(take(&inbox).is_empty());
    inbox.post(&again, Urgency::Normal);
    inbox.post(&stopped, Urgency::Normal);
    assert_eq!(take(&inbox), [(Run::Normal, 3), (Run::Normal, 1)]);
    assert_eq!(notifier.writes(), 2);
}

#[test]
fn h7_a_taker_that_panics_leaks_nothing() {
    let (inbox, payload) = (Inbox::new(), Arc::new(()));
    for _ in 0..10 {
        inbox.send(payload.clone()).unwrap();
    }
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        inbox.take_all(&mut |_| panic!("in the middle"));
    }));
    assert!(panicked.is_err());
    assert_eq!(Arc::strong_count(&payload), 1);
}

/// Several threads schedule the same nodes again and again while the loop runs them and sleeps in between: nothing is lost
/// (the last schedule of each is followed by a run), and nobody hangs.
#[test]
fn h1_h2_n1_n2_no_schedule_and_no_wake_up_is_lost_under_load() {
    const ROUNDS: u64 = 20_000;
    let (notifier, inbox) = (Notifier::new().unwrap(), Inbox::new());
    let nodes: Vec<_> = (0..4)
        .map(|_| Node::new((AtomicU64::new(0), AtomicU64::new(0))))
        .collect();
    thread::scope(|scope| {
        for node in &nodes {
            let (notifier, inbox) = (&notifier, &inbox);
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    node.payload().0.store(round, Ordering::Relaxed);
                    inbox.post(node, Urgency::Normal);
                    notifier.notify();
                }
            });
        }
        let mut runs = 0;
        while nodes
            .iter()
            .any(|node| node.payload().1.load(Ordering::Relaxed) != ROUNDS)
        {
            notifier.accept();
            inbox.take_all(&mut |node| {
                assert_eq!(node.begin(), Run::Normal);
                let (written, seen) = node.payload();
                seen.store(written.load(Ordering::Relaxed), Ordering::Relaxed);
                runs += 1;
            });
            let finished = nodes
                .iter()
                .all(|node| node.payload().1.load(Ordering::Relaxed) == ROUNDS);
            if !finished && notifier.prepare_to_wait() {
                let mut fds = [rustix::event::PollFd::new(
                    &notifier,
                    rustix::event::PollFlags::IN,
                )];
                let limit = rustix::event::Timespec {
                    tv_sec: 60,
                    tv_nsec: 0,
                };
                let woken = rustix::event::poll(&mut fds, Some(&limit)).unwrap();
                assert_eq!(woken, 1, "nobody rang for a minute");
                notifier.finish_wait();
            }
        }
        assert!(runs <= 4 * ROUNDS);
    });
}
