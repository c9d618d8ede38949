//! The ways to wake a loop, each separately: inbox, nodes, notifier, board.

use std::sync::atomic::{AtomicU64, Ordering};

use aio_notify::{Board, Dequeued, Inbox, Item, Message, Node, Notifier, Posted, RunQueue, Urgency};
use anyhow::ensure;
use rustix::event::{PollFd, PollFlags, poll};

use crate::crowd::{CROWD, against, against_owners};

/// The number of messages from each thread in a round.
const EACH: u64 = 400;

/// A message with contents that one thread writes and another reads, changes and frees.
type Letter = Box<[u64; 4]>;

fn letter(thread: usize, number: u64) -> Letter {
    let mut message = Box::new([0; 4]);
    message[0] = thread as u64;
    message[1] = number;
    message
}

/// Waits for a notification, as a loop does.
fn wait(notifier: &Notifier) -> anyhow::Result<()> {
    if notifier.accept() || !notifier.prepare_to_wait() {
        notifier.accept();
        return Ok(());
    }
    let mut fds = [PollFd::new(notifier, PollFlags::IN)];
    let waited = poll(&mut fds, None);
    notifier.finish_wait();
    waited?;
    Ok(())
}

/// Returns a message that was sent.
fn open(dequeued: Dequeued<(), Letter>) -> anyhow::Result<Letter> {
    match dequeued.begin() {
        Item::Sent(message) => Ok(message.contents),
        said => anyhow::bail!("the message was sent, and the node returned {said:?}"),
    }
}

/// Messages through the inbox. Each arrives once, in the order of its sender.
pub(crate) fn inbox(_: u32) -> anyhow::Result<()> {
    let (inbox, notifier) = (Inbox::new(), Notifier::new()?);
    let send = |thread| {
        for number in 0..EACH {
            let sent = inbox.send(Box::new(Message::new(letter(thread, number))));
            assert!(sent.is_ok(), "the inbox is open");
            notifier.notify();
        }
    };
    against(send, || {
        let (mut next, mut queue) = ([0; CROWD], RunQueue::new());
        while next != [EACH; CROWD] {
            queue.take(&inbox);
            while let Some(dequeued) = queue.pop() {
                let mut message = open(dequeued)?;
                message[2] += 1;
                let next = &mut next[message[0] as usize];
                ensure!(message[1] == *next, "{} came instead of {next}", message[1]);
                *next += 1;
            }
            if next != [EACH; CROWD] {
                wait(&notifier)?;
            }
        }
        Ok(())
    })
}

/// The inbox is closed while messages arrive. Each is delivered or returned.
pub(crate) fn inbox_closes(round: u32) -> anyhow::Result<()> {
    let inbox = Inbox::new();
    let refused = AtomicU64::new(0);
    let send = |thread| {
        for number in 0..EACH {
            if let Err(mut message) = inbox.send(Box::new(Message::new(letter(thread, number)))) {
                message.contents[2] += 1;
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let mut arrived = 0;
    against(send, || {
        let mut queue = RunQueue::new();
        for _ in 0..round % 8 {
            queue.take(&inbox);
        }
        inbox.close(&mut queue);
        while let Some(dequeued) = queue.pop() {
            arrived += open(dequeued)?.len() as u64 / 4;
        }
        anyhow::Ok(())
    })?;
    let all = arrived + refused.load(Ordering::Relaxed);
    ensure!(all == EACH * CROWD as u64, "{all} messages were sent");
    Ok(())
}

/// All threads, including the home thread, post, cancel and at last retire the same nodes. Each node is
/// returned once, after all threads have finished with it.
pub(crate) fn nodes(_: u32) -> anyhow::Result<()> {
    const NODES: usize = 4;
    let (inbox, notifier) = (Inbox::<Letter>::new(), Notifier::new()?);
    let nodes: Vec<Node<Letter>> = (0..NODES).map(|number| Node::new(letter(number, 0))).collect();
    let post = |nodes: &[Node<Letter>], number: usize| {
        let node = &nodes[number % NODES];
        match number % 5 {
            0 => node.cancel(),
            1 => drop(node.clone()),
            2 => assert!(inbox.post(node, Urgency::Idle) != Posted::Closed, "it is open"),
            _ => assert!(inbox.post(node, Urgency::Normal) != Posted::Closed, "it is open"),
        }
    };
    let work = |thread: usize, nodes: Vec<Node<Letter>>| {
        for number in 0..EACH as usize {
            post(&nodes, thread + number);
            notifier.notify();
        }
        for node in nodes {
            inbox.retire(node);
            notifier.notify();
        }
    };
    let handles = [(); CROWD].map(|()| nodes.clone());
    let mut own = Some(nodes);
    against_owners(handles, work, || {
        let (mut returned, mut queue, mut number) = ([0; NODES], RunQueue::new(), 0);
        while returned != [1; NODES] {
            queue.take(&inbox);
            while let Some(dequeued) = queue.pop() {
                if let Item::Retired(mut message) = dequeued.begin() {
                    message[1] += 1;
                    returned[message[0] as usize] += message[1];
                }
            }
            number += 1;
            match own.take() {
                Some(nodes) if number < EACH as usize => {
                    post(&nodes, number);
                    own = Some(nodes);
                }
                Some(nodes) => {
                    for node in nodes {
                        inbox.retire(node);
                    }
                }
                None if returned != [1; NODES] => wait(&notifier)?,
                None => {}
            }
            ensure!(
                returned.iter().all(|times| *times <= 1),
                "came back twice: {returned:?}"
            );
        }
        Ok(())
    })
}

/// Rings of a board. The last ring of each source is found, whether the loop polls or sleeps.
pub(crate) fn board(_: u32) -> anyhow::Result<()> {
    const SOURCES: usize = 130;
    let (board, notifier) = (Board::new(SOURCES), Notifier::new()?);
    let rings: Vec<AtomicU64> = (0..SOURCES).map(|_| AtomicU64::new(0)).collect();
    let work = |thread: usize| {
        for number in 0..EACH as usize {
            let source = (thread * 43 + number) % SOURCES;
            rings[source].fetch_add(1, Ordering::Relaxed);
            board.ring(source, || notifier.notify());
        }
    };
    against(work, || {
        let mut heard = [0; SOURCES];
        while heard.iter().sum::<u64>() < EACH * CROWD as u64 {
            board.disarm();
            let mut any = false;
            while let Some(source) = board.find(0) {
                ensure!(board.take(source), "found and not there");
                heard[source] = rings[source].load(Ordering::Relaxed);
                any = true;
            }
            if any {
                continue;
            }
            board.arm();
            if board.find(0).is_none() {
                wait(&notifier)?;
            }
        }
        Ok(())
    })
}
