//! The inbox and its nodes on one thread, and under load on several.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::Notifier;

#[path = "run_queue_tests.rs"]
mod run_queue;

/// An [`Item`] without its contents, for comparisons.
#[derive(Debug, PartialEq, Eq)]
enum Begun<T> {
    Cancelled,
    Normal(T),
    Idle(T),
    Retired(T),
    Sent(T),
}

/// Begins a node or a message, and returns the result.
fn begun<T: Copy>(dequeued: Dequeued<T>) -> Begun<T> {
    let payload = dequeued.payload().copied();
    match (dequeued.begin(), payload) {
        (Item::Normal, Some(payload)) => Begun::Normal(payload),
        (Item::Idle, Some(payload)) => Begun::Idle(payload),
        (Item::Retired(payload), Some(_)) => Begun::Retired(payload),
        (Item::Sent(message), None) => Begun::Sent(message.contents),
        (Item::Cancelled, Some(_)) => Begun::Cancelled,
        _ => panic!("a node has a payload, and a message has contents"),
    }
}

fn take<T: Copy>(inbox: &Inbox<T>) -> Vec<Begun<T>> {
    let mut queue = RunQueue::new();
    queue.take(inbox);
    std::iter::from_fn(|| queue.pop()).map(begun).collect()
}

fn send<T>(inbox: &Inbox<T>, message: T) -> Result<(), T> {
    inbox
        .send(Box::new(Message::new(message)))
        .map_err(|message| message.contents)
}

/// Runs `work` on another thread, and waits for it.
fn elsewhere<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"))
}

#[test]
fn h1_scheduled_twice_runs_once() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::Queued);
    assert!(node.is_scheduled());
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::AlreadyQueued);
    assert_eq!(take(&inbox), [Begun::Normal(1)]);
    assert!(take(&inbox).is_empty() && !node.is_scheduled());
}

#[test]
fn h1_scheduled_at_home_and_elsewhere_runs_once() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::Queued);
    let posted = elsewhere(|| inbox.post(&node, Urgency::Normal));
    assert_eq!(posted, Posted::AlreadyQueued);
    assert_eq!(take(&inbox), [Begun::Normal(1)]);
    let posted = elsewhere(|| inbox.post(&node, Urgency::Normal));
    assert_eq!(posted, Posted::Queued);
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::AlreadyQueued);
    assert_eq!(take(&inbox), [Begun::Normal(1)]);
    assert!(take(&inbox).is_empty());
}

#[test]
fn h3_first_in_first_out() {
    let inbox = Inbox::new();
    let nodes: Vec<_> = (0..100).map(Node::new).collect();
    for node in &nodes {
        inbox.post(node, Urgency::Normal);
    }
    let expected: Vec<_> = (0..100).map(Begun::Normal).collect();
    assert_eq!(take(&inbox), expected);
}

/// Threads post one after the other, in every pattern; nodes are taken in the order of the posts.
#[test]
fn h3_first_in_first_out_from_home_and_elsewhere() {
    for pattern in 0..1 << 8 {
        let inbox = Inbox::new();
        let nodes: Vec<_> = (0..8).map(Node::new).collect();
        let mut expected = Vec::new();
        for node in &nodes {
            let number = *node.payload();
            let urgency = if number % 3 == 2 {
                Urgency::Idle
            } else {
                Urgency::Normal
            };
            if pattern >> number & 1 == 0 {
                inbox.post(node, urgency);
            } else {
                elsewhere(|| inbox.post(node, urgency));
            }
            expected.push(match urgency {
                Urgency::Normal => Begun::Normal(number),
                Urgency::Idle => Begun::Idle(number),
            });
        }
        assert_eq!(take(&inbox), expected, "pattern {pattern:b}");
    }
}

#[test]
fn h4_what_is_taken_later_stands_behind_what_is_in_line() {
    let (inbox, mut queue) = (Inbox::new(), RunQueue::new());
    let nodes: Vec<_> = (0..6).map(Node::new).collect();
    let post = |numbers: std::ops::Range<usize>| {
        for node in &nodes[numbers] {
            inbox.post(node, Urgency::Normal);
        }
    };
    post(0..3);
    queue.take(&inbox);
    assert_eq!(queue.pop().map(begun), Some(Begun::Normal(0)));
    post(3..5);
    queue.take(&inbox);
    elsewhere(|| post(5..6));
    post(0..1);
    queue.take(&inbox);
    let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).map(begun).collect();
    assert_eq!(rest, [1, 2, 3, 4, 5, 0].map(Begun::Normal));
    assert!(queue.is_empty());
}

#[test]
fn h2_scheduled_while_it_runs_is_for_the_next_take() {
    let (inbox, node, mut queue) = (Inbox::new(), Node::new(1), RunQueue::new());
    inbox.post(&node, Urgency::Normal);
    queue.take(&inbox);
    assert_eq!(queue.pop().map(begun), Some(Begun::Normal(1)));
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::Queued);
    assert!(queue.pop().is_none());
    assert_eq!(take(&inbox), [Begun::Normal(1)]);
}

#[test]
fn h2_scheduled_between_take_and_begin_is_one_run() {
    let (inbox, node, mut queue) = (Inbox::new(), Node::new(1), RunQueue::new());
    inbox.post(&node, Urgency::Normal);
    queue.take(&inbox);
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::AlreadyQueued);
    assert_eq!(queue.pop().map(begun), Some(Begun::Normal(1)));
    assert!(take(&inbox).is_empty());
}

#[test]
fn h5_cancelled_does_not_run_unless_scheduled_again() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    inbox.post(&node, Urgency::Normal);
    node.cancel();
    assert!(!node.is_scheduled());
    assert_eq!(take(&inbox), [Begun::Cancelled]);
    inbox.post(&node, Urgency::Normal);
    node.cancel();
    inbox.post(&node, Urgency::Normal);
    assert_eq!(take(&inbox), [Begun::Normal(1)]);
    inbox.post(&node, Urgency::Normal);
    elsewhere(|| node.cancel());
    assert_eq!(take(&inbox), [Begun::Cancelled]);
}

#[test]
fn h5_what_was_taken_and_is_dropped_can_be_posted_again() {
    let (inbox, node, mut queue) = (Inbox::new(), Node::new(1), RunQueue::new());
    inbox.post(&node, Urgency::Normal);
    queue.take(&inbox);
    drop(queue);
    assert!(!node.is_scheduled());
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::Queued);
    assert_eq!(take(&inbox), [Begun::Normal(1)]);
}

#[test]
fn h6_the_last_handle_has_the_node_travel_once_more() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    let other = node.clone();
    assert!(!inbox.retire(other), "it is not the last one");
    assert!(take(&inbox).is_empty());
    assert!(inbox.retire(node));
    assert!(inbox.pending() && !inbox.has_normal(), "it keeps no loop awake");
    assert_eq!(take(&inbox), [Begun::Retired(1)]);
}

#[test]
fn h6_scheduled_and_retired_is_not_called_and_comes_back_once() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    inbox.post(&node, Urgency::Normal);
    assert!(!inbox.retire(node), "it is queued already");
    assert_eq!(take(&inbox), [Begun::Retired(1)]);
    assert!(take(&inbox).is_empty());
}

#[test]
fn h6_retired_while_it_is_in_line_is_not_called() {
    let (inbox, node, mut queue) = (Inbox::new(), Node::new(1), RunQueue::new());
    inbox.post(&node, Urgency::Normal);
    queue.take(&inbox);
    elsewhere(|| inbox.retire(node));
    let dequeued = queue.pop().unwrap();
    assert!(!dequeued.is_scheduled(), "no handle is left that could want it");
    assert_eq!(begun(dequeued), Begun::Retired(1));
}

/// A payload is dropped once, with the last of the handles, the inbox and the queue.
#[test]
fn h6_a_payload_is_dropped_once_with_its_last_owner() {
    type Step = fn(&Inbox<Arc<()>>, &mut RunQueue<Arc<()>>, &mut Vec<Node<Arc<()>>>);
    const STEPS: [Step; 6] = [
        |inbox, _, nodes| {
            if let Some(node) = nodes.first() {
                inbox.post(node, Urgency::Normal);
            }
        },
        |inbox, queue, _| queue.take(inbox),
        |_, queue, _| drop(queue.pop()),
        |_, _, nodes| drop(nodes.pop()),
        |inbox, _, nodes| {
            if let Some(node) = nodes.pop() {
                inbox.retire(node);
            }
        },
        |inbox, queue, _| inbox.close(queue),
    ];
    for script in 0..STEPS.len().pow(5) {
        let (inbox, mut queue, payload) = (Inbox::new(), RunQueue::new(), Arc::new(()));
        let node = Node::new(payload.clone());
        let mut nodes = vec![node.clone(), node];
        let mut rest = script;
        for _ in 0..5 {
            STEPS[rest % STEPS.len()](&inbox, &mut queue, &mut nodes);
            rest /= STEPS.len();
            assert!(
                nodes.is_empty() || Arc::strong_count(&payload) == 2,
                "script {script}"
            );
        }
        match script % 3 {
            0 => drop((inbox, queue, nodes)),
            1 => drop((nodes, queue, inbox)),
            _ => drop((queue, nodes, inbox)),
        }
        assert_eq!(Arc::strong_count(&payload), 1, "script {script}");
    }
}

#[test]
fn h8_a_normal_schedule_wins_over_idle_in_either_order() {
    for order in [[Urgency::Normal, Urgency::Idle], [Urgency::Idle, Urgency::Normal]] {
        for at_home in [true, false] {
            let (inbox, node) = (Inbox::new(), Node::new(1));
            let post = || order.map(|urgency| inbox.post(&node, urgency));
            if at_home {
                post()
            } else {
                elsewhere(post)
            };
            assert!(inbox.has_normal());
            assert_eq!(take(&inbox), [Begun::Normal(1)]);
            assert!(!inbox.has_normal());
        }
    }
}

#[test]
fn h8_idle_alone_has_no_hurry() {
    let (inbox, node) = (Inbox::new(), Node::new(1));
    for _ in 0..2 {
        inbox.post(&node, Urgency::Idle);
        assert!(inbox.pending() && !inbox.has_normal());
        assert_eq!(take(&inbox), [Begun::Idle(1)]);
        elsewhere(|| inbox.post(&node, Urgency::Normal));
        assert!(inbox.has_normal());
        assert_eq!(take(&inbox), [Begun::Normal(1)], "and no hurry is left over");
    }
}

#[test]
fn h7_what_is_sent_arrives_or_comes_back() {
    let inbox = Inbox::<String>::new();
    assert_eq!(send(&inbox, String::from("one")), Ok(()));
    assert_eq!(elsewhere(|| send(&inbox, String::from("two"))), Ok(()));
    assert!(inbox.has_normal());
    let mut queue = RunQueue::new();
    queue.take(&inbox);
    for expected in ["one", "two"] {
        let dequeued = queue.pop().unwrap();
        assert!(dequeued.payload().is_none() && !dequeued.is_scheduled());
        let Item::Sent(message) = dequeued.begin() else {
            panic!("it was sent")
        };
        assert_eq!(message.contents, expected);
    }
    inbox.close(&mut queue);
    assert!(queue.is_empty());
    assert_eq!(send(&inbox, String::from("three")), Err(String::from("three")));
    assert_eq!(
        elsewhere(|| send(&inbox, String::from("four"))),
        Err(String::from("four"))
    );
}

/// A message of any size can be sent to an inbox of trait objects. Only the thread that dequeues it can
/// access it, so it need not be `Sync`.
#[test]
fn h7_messages_can_be_trait_objects() {
    type Contents = dyn FnMut() -> usize + Send;
    let inbox = Inbox::<(), Contents>::new();
    let numbers = Cell::new([7; 9]);
    elsewhere(|| {
        let large: Box<Message<(), Contents>> = Box::new(Message::new(move || numbers.get()[8]));
        let small: Box<Message<(), Contents>> = Box::new(Message::new(|| 1));
        assert!(inbox.send(large).is_ok() && inbox.send(small).is_ok());
    });
    let mut queue = RunQueue::new();
    queue.take(&inbox);
    let mut results = Vec::new();
    while let Some(dequeued) = queue.pop() {
        if let Item::Sent(mut message) = dequeued.begin() {
            results.push((message.contents)());
        }
    }
    assert_eq!(results, [7, 1]);
}

#[test]
fn h9_closing_hands_out_what_is_left_and_refuses_the_rest() {
    let (inbox, mut queue) = (Inbox::new(), RunQueue::new());
    let (node, other, third) = (Node::new(1), Node::new(2), Node::new(3));
    inbox.post(&node, Urgency::Normal);
    elsewhere(|| inbox.post(&other, Urgency::Normal));
    inbox.close(&mut queue);
    let left: Vec<_> = std::iter::from_fn(|| queue.pop()).map(begun).collect();
    assert_eq!(left, [Begun::Normal(1), Begun::Normal(2)]);
    for _ in 0..2 {
        assert_eq!(inbox.post(&third, Urgency::Normal), Posted::Closed);
        assert_eq!(
            elsewhere(|| inbox.post(&third, Urgency::Idle)),
            Posted::Closed,
            "refused once does not make it queued"
        );
        queue.take(&inbox);
        assert!(queue.is_empty() && !inbox.pending(), "taking does not open it");
    }
    assert!(
        !third.is_scheduled() && !inbox.retire(third),
        "no loop is there to run it"
    );
}

#[test]
fn h7_a_dropped_inbox_drops_what_was_never_taken() {
    let (inbox, payload) = (Inbox::new(), Arc::new(()));
    for at_home in [true, false, true] {
        let send = || send(&inbox, payload.clone());
        let sent = if at_home { send() } else { elsewhere(send) };
        assert!(sent.is_ok());
    }
    let node = Node::new(payload.clone());
    inbox.post(&node, Urgency::Normal);
    thread::spawn(move || drop(inbox)).join().unwrap();
    assert_eq!(Arc::strong_count(&payload), 2);
    drop(node);
    assert_eq!(Arc::strong_count(&payload), 1);
}

/// Fault F2: only this thread's post is late. The loop is as it was.
#[test]
fn case_82_a_poster_that_stops_before_it_notifies() {
    let (notifier, inbox) = (Notifier::new().unwrap(), Inbox::new());
    let [stopped, other, again] = [1, 2, 3].map(Node::new);
    inbox.post(&stopped, Urgency::Normal);
    assert!(notifier.prepare_to_wait(), "the loop was not notified: it sleeps");
    inbox.post(&other, Urgency::Normal);
    notifier.notify();
    notifier.finish_wait();
    assert_eq!(
        take(&inbox),
        [Begun::Normal(1), Begun::Normal(2)],
        "in their order"
    );
    assert!(notifier.prepare_to_wait());
    // The thread goes on, and notifies.
    notifier.notify();
    notifier.finish_wait();
    assert!(take(&inbox).is_empty());
    inbox.post(&again, Urgency::Normal);
    inbox.post(&stopped, Urgency::Normal);
    assert_eq!(take(&inbox), [Begun::Normal(3), Begun::Normal(1)]);
    assert_eq!(notifier.writes(), 2);
}

/// If another thread takes, the home thread's own list stays untouched.
#[test]
fn d7_another_thread_takes_only_the_shared_list() {
    let (inbox, node, queue) = (Inbox::new(), Node::new(1), Mutex::new(RunQueue::new()));
    inbox.post(&node, Urgency::Normal);
    elsewhere(|| {
        let mut queue = queue.lock().unwrap();
        queue.take(&inbox);
        assert!(queue.is_empty() && inbox.pending());
        inbox.close(&mut queue);
        assert!(queue.is_empty() && inbox.pending());
    });
    assert_eq!(take(&inbox), [Begun::Normal(1)]);
    assert_eq!(inbox.post(&node, Urgency::Normal), Posted::Closed);
}

/// Several threads schedule the same nodes again and again while the loop runs them and sleeps in between: nothing is lost
/// (the last schedule of each is followed by a run), and no thread hangs.
#[test]
fn h1_h2_n1_n2_no_schedule_and_no_wake_up_is_lost_under_load() {
    const ROUNDS: u64 = 20_000;
    let (notifier, inbox) = (Notifier::new().unwrap(), Inbox::new());
    let numbers: [(AtomicU64, AtomicU64); 4] = Default::default();
    let nodes = [0, 1, 2, 3].map(Node::<usize>::new);
    let mut queue = RunQueue::new();
    thread::scope(|scope| {
        for node in &nodes {
            let (notifier, inbox, numbers) = (&notifier, &inbox, &numbers);
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    numbers[*node.payload()].0.store(round, Ordering::Relaxed);
                    inbox.post(node, Urgency::Normal);
                    notifier.notify();
                }
            });
        }
        let mut runs = 0;
        let is_finished = || {
            numbers
                .iter()
                .all(|(_, seen)| seen.load(Ordering::Relaxed) == ROUNDS)
        };
        while !is_finished() {
            notifier.accept();
            queue.take(&inbox);
            while let Some(dequeued) = queue.pop() {
                let number = *dequeued.payload().unwrap();
                assert!(matches!(dequeued.begin(), Item::Normal));
                let (written, seen) = &numbers[number];
                seen.store(written.load(Ordering::Relaxed), Ordering::Relaxed);
                runs += 1;
            }
            if !is_finished() && notifier.prepare_to_wait() {
                let mut fds = [rustix::event::PollFd::new(
                    &notifier,
                    rustix::event::PollFlags::IN,
                )];
                let limit = rustix::event::Timespec {
                    tv_sec: 60,
                    tv_nsec: 0,
                };
                let woken = rustix::event::poll(&mut fds, Some(&limit)).unwrap();
                assert_eq!(woken, 1, "no write for a minute");
                notifier.finish_wait();
            }
        }
        assert!(runs <= 4 * ROUNDS);
    });
}
