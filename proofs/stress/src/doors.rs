//! The doors by themselves: inbox, nodes, notifier, board.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aio_notify::{Board, Inbox, Node, Notifier, Posted, Run, Urgency};
use anyhow::ensure;
use rustix::event::{PollFd, PollFlags, poll};

use crate::crowd::{CROWD, against};

/// Messages from each thread in a round.
const EACH: u64 = 400;

/// A message whose contents are written by one thread and read, changed and freed by another.
type Message = Box<[u64; 4]>;

fn message(thread: usize, number: u64) -> Message {
    let mut message = Box::new([0; 4]);
    message[0] = thread as u64;
    message[1] = number;
    message
}

/// Waits as a loop does, until somebody notifies.
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

/// Messages through the inbox: each arrives once, in the order of its sender.
pub(crate) fn inbox(_: u32) -> anyhow::Result<()> {
    let (inbox, notifier) = (Inbox::new(), Notifier::new()?);
    let send = |thread| {
        for number in 0..EACH {
            let sent = inbox.send(message(thread, number));
            assert!(sent.is_ok(), "the inbox is open");
            notifier.notify();
        }
    };
    against(send, || {
        let mut next = [0; CROWD];
        while next != [EACH; CROWD] {
            let mut order = Ok(());
            inbox.take_all(&mut |node: Arc<Node<Message>>| {
                let Some(mut message) = node.into_payload() else {
                    order = Err(anyhow::anyhow!("somebody kept a share"));
                    return;
                };
                message[2] += 1;
                let next = &mut next[message[0] as usize];
                if message[1] != *next {
                    order = Err(anyhow::anyhow!("{} came instead of {next}", message[1]));
                }
                *next += 1;
            });
            order?;
            if next != [EACH; CROWD] {
                wait(&notifier)?;
            }
        }
        Ok(())
    })
}

/// The inbox is closed while messages come: each arrives, or is given back.
pub(crate) fn inbox_closes(round: u32) -> anyhow::Result<()> {
    let inbox = Inbox::new();
    let refused = AtomicU64::new(0);
    let send = |thread| {
        for number in 0..EACH {
            if let Err(mut message) = inbox.send(message(thread, number)) {
                message[2] += 1;
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let mut arrived = 0;
    against(send, || {
        let mut take = |node: Arc<Node<Message>>| arrived += node.payload().len() as u64 / 4;
        for _ in 0..round % 8 {
            inbox.take_all(&mut take);
        }
        inbox.close(&mut take);
    });
    let all = arrived + refused.load(Ordering::Relaxed);
    ensure!(all == EACH * CROWD as u64, "{all} messages were sent");
    Ok(())
}

/// The same nodes posted, cancelled and in the end deleted by all threads: each is buried once.
pub(crate) fn nodes(_: u32) -> anyhow::Result<()> {
    const NODES: usize = 4;
    let (inbox, notifier) = (Inbox::new(), Notifier::new()?);
    let nodes: Vec<Arc<Node<usize>>> = (0..NODES).map(Node::new).collect();
    let ready = AtomicUsize::new(0);
    let work = |thread: usize| {
        for number in 0..EACH as usize {
            let node = &nodes[(thread + number) % NODES];
            match number % 5 {
                0 => node.cancel(),
                1 => drop(inbox.post(node, Urgency::Idle)),
                _ => drop(inbox.post(node, Urgency::Normal)),
            }
            notifier.notify();
        }
        for node in &nodes {
            node.delete();
            let posted = inbox.post(node, Urgency::Idle);
            assert!(posted != Posted::Closed, "the inbox is open");
        }
        ready.fetch_add(1, Ordering::Relaxed);
        notifier.notify();
    };
    against(work, || {
        let mut buried = [0; NODES];
        loop {
            let all_ready = ready.load(Ordering::Relaxed) == CROWD;
            inbox.take_all(&mut |node| {
                if node.begin() == Run::Deleted {
                    buried[*node.payload()] += 1;
                }
            });
            if all_ready && buried == [1; NODES] {
                return Ok(());
            }
            ensure!(buried.iter().all(|times| *times <= 1), "buried twice: {buried:?}");
            wait(&notifier)?;
        }
    })
}

/// Rings of a board: the last ring of each source is heard, whether the loop looks or rests.
pub(crate) fn board(_: u32) -> anyhow::Result<()> {
    const SOURCES: usize = 130;
    let (board, notifier) = (Board::new(SOURCES), Notifier::new()?);
    let rung: Vec<AtomicU64> = (0..SOURCES).map(|_| AtomicU64::new(0)).collect();
    let work = |thread: usize| {
        for number in 0..EACH as usize {
            let source = (thread * 43 + number) % SOURCES;
            rung[source].fetch_add(1, Ordering::Relaxed);
            board.ring(source, || notifier.notify());
        }
    };
    against(work, || {
        let mut heard = [0; SOURCES];
        while heard.iter().sum::<u64>() < EACH * CROWD as u64 {
            board.attend();
            let mut any = false;
            while let Some(source) = board.find(0) {
                ensure!(board.take(source), "found and not there");
                heard[source] = rung[source].load(Ordering::Relaxed);
                any = true;
            }
            if any {
                continue;
            }
            board.rest();
            if board.find(0).is_none() {
                wait(&notifier)?;
            }
        }
        Ok(())
    })
}
