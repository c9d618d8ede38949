//! The run queue: its order, and the entries that it drops when a loop panics.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;

#[test]
fn h4_a_run_queue_is_empty_when_the_last_one_has_left_it() {
    let (inbox, nodes, mut queue) = (Inbox::new(), [1, 2].map(Node::new), RunQueue::new());
    assert!(queue.is_empty());
    for node in &nodes {
        inbox.post(node, Urgency::Normal);
    }
    assert!(queue.is_empty(), "nothing was dequeued yet");
    queue.take(&inbox);
    for expected in [1, 2] {
        assert!(!queue.is_empty());
        assert_eq!(queue.pop().map(begun), Some(Begun::Normal(expected)));
    }
    assert!(queue.is_empty() && queue.pop().is_none());
}

#[test]
fn h3_messages_and_nodes_share_one_queue() {
    let (inbox, nodes) = (Inbox::new(), [1, 3, 5].map(Node::new));
    inbox.post(&nodes[0], Urgency::Normal);
    assert_eq!(send(&inbox, 2), Ok(()));
    elsewhere(|| {
        inbox.post(&nodes[1], Urgency::Normal);
        assert_eq!(send(&inbox, 4), Ok(()));
    });
    inbox.post(&nodes[2], Urgency::Idle);
    let expected = [
        Begun::Normal(1),
        Begun::Sent(2),
        Begun::Normal(3),
        Begun::Sent(4),
        Begun::Idle(5),
    ];
    assert_eq!(take(&inbox), expected);
}

#[test]
fn h5_a_queued_node_is_scheduled_until_it_is_cancelled() {
    for urgency in [Urgency::Normal, Urgency::Idle] {
        let (inbox, node, mut queue) = (Inbox::<u8>::new(), Node::new(1), RunQueue::new());
        inbox.post(&node, urgency);
        queue.take(&inbox);
        let dequeued = queue.pop().unwrap();
        assert!(dequeued.is_scheduled() && node.is_scheduled(), "it has not begun");
        elsewhere(|| node.cancel());
        assert!(!dequeued.is_scheduled() && !node.is_scheduled());
        assert_eq!(inbox.post(&node, urgency), Posted::AlreadyQueued);
        assert!(dequeued.is_scheduled(), "it is still queued");
        assert!(!matches!(dequeued.begin(), Item::Cancelled));
    }
}

/// A callback panics, and the loop is unwound: all its entries are dropped, once.
#[test]
fn h6_h7_a_panic_drops_nodes_and_messages() {
    let payload = Arc::new(());
    let nodes = [0, 1, 2].map(|_| Node::new(payload.clone()));
    let [running, waiting, posted] = nodes.each_ref().map(Node::clone);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let (inbox, mut queue) = (Inbox::new(), RunQueue::new());
        inbox.post(&running, Urgency::Normal);
        inbox.post(&waiting, Urgency::Normal);
        assert!(send(&inbox, payload.clone()).is_ok());
        queue.take(&inbox);
        assert!(matches!(queue.pop().map(Dequeued::begin), Some(Item::Normal)));
        inbox.post(&posted, Urgency::Normal);
        assert!(elsewhere(|| send(&inbox, payload.clone())).is_ok());
        let _these_too = nodes;
        resume_unwind(Box::new("a callback has panicked"));
    }));
    assert_eq!(
        panicked.unwrap_err().downcast_ref(),
        Some(&"a callback has panicked")
    );
    assert_eq!(Arc::strong_count(&payload), 4, "three nodes have a handle left");
    let inbox = Inbox::new();
    for node in [running, waiting, posted] {
        assert!(!node.is_scheduled());
        assert_eq!(
            inbox.post(&node, Urgency::Normal),
            Posted::Queued,
            "it is in no queue"
        );
    }
    drop(inbox);
    assert_eq!(Arc::strong_count(&payload), 1);
}
