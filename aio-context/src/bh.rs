//! Bottom halves: callbacks deferred to the next iteration, scheduled from any thread without an allocation.
//!
//! The closure stays on the home thread, in [`BottomHalves`]; what travels through the inbox is a node that names it.
//! This module decides nothing about wake-ups: that is `aio-notify`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use aio_notify::{Node, Run, Urgency};

use crate::Context;
use crate::remote::Shared;

/// How many bottom halves one iteration runs at the most; the rest stays in line for the next.
const BUDGET: usize = 4096;

pub(crate) type OnceJob = Box<dyn FnOnce(&Context) + Send>;
type Callback = Rc<dyn Fn(&Context)>;

/// What a node in the inbox stands for.
pub(crate) enum Job {
    /// The callback in this slot of the home thread's table.
    BottomHalf { slot: usize, name: &'static str },
    /// A closure to be run once. The mutex is never locked: it only makes the job `Sync`.
    Once(Mutex<OnceJob>),
}

/// A deferred callback; dropping the last clone of the handle deletes it.
///
/// The handle can be used and dropped on any thread; the callback runs on the home thread, at most once per iteration,
/// in the order of scheduling.
#[doc(alias = "QEMUBH")]
#[derive(Clone)]
#[must_use = "dropped at once, it is deleted and never runs"]
pub struct BottomHalf(Arc<Handle>);

struct Handle {
    node: Arc<Node<Job>>,
    shared: Arc<Shared>,
    name: &'static str,
}

impl BottomHalf {
    pub(crate) fn new(slot: usize, name: &'static str, shared: Arc<Shared>) -> Self {
        Self(Arc::new(Handle {
            node: Node::new(Job::BottomHalf { slot, name }),
            shared,
            name,
        }))
    }

    /// Has the callback run once in the next iteration, and wakes the loop. Scheduling it again before it runs changes
    /// nothing; scheduling it while it runs makes it run again in the iteration after. Never blocks, never allocates;
    /// without effect once the context is gone.
    #[doc(alias = "qemu_bh_schedule")]
    pub fn schedule(&self) {
        self.0.shared.post(&self.0.node, Urgency::Normal);
    }

    /// Has the callback run within 10 ms, without counting as progress and without keeping the loop awake.
    #[doc(alias = "qemu_bh_schedule_idle")]
    pub fn schedule_idle(&self) {
        // A notification would keep a loop from sleeping; one that schedules itself again makes none, being at home.
        self.0.shared.post(&self.0.node, Urgency::Idle);
    }

    /// Takes back what was scheduled. If another thread cancels just as the callback starts, it runs once more.
    #[doc(alias = "qemu_bh_cancel")]
    pub fn cancel(&self) {
        self.0.node.cancel();
    }

    /// The name given to [`Context::bottom_half`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.node.delete();
        // Even a deleted node travels once more, so that the home thread frees the closure.
        self.shared.post(&self.node, Urgency::Idle);
    }
}

impl fmt::Debug for BottomHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BottomHalf")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

/// The home thread's side: the closures, and the nodes that were taken from the inbox and have not run yet.
#[derive(Default)]
pub(crate) struct BottomHalves {
    callbacks: RefCell<Slab>,
    /// What an iteration has taken; a nested poll goes on where the outer one was, then runs what is new (rule H4).
    line: RefCell<VecDeque<Arc<Node<Job>>>>,
}

#[derive(Default)]
struct Slab {
    slots: Vec<Option<Callback>>,
    vacant: Vec<usize>,
}

impl BottomHalves {
    pub(crate) fn insert(&self, run: Callback) -> usize {
        let mut slab = self.callbacks.borrow_mut();
        if let Some(slot) = slab.vacant.pop() {
            slab.slots[slot] = Some(run);
            return slot;
        }
        slab.slots.push(Some(run));
        slab.slots.len() - 1
    }

    /// Whether work was taken and is still in line.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.line.borrow().is_empty()
    }

    /// Takes what was scheduled and runs it; true if a callback ran that counts as progress (rules H2-H4, H8).
    #[inline]
    pub(crate) fn run(&self, cx: &Context, shared: &Shared) -> bool {
        (shared.inbox.pending() || self.is_waiting()) && self.run_line(cx, shared)
    }

    fn run_line(&self, cx: &Context, shared: &Shared) -> bool {
        if shared.inbox.pending() {
            let mut line = self.line.borrow_mut();
            shared.inbox.take_all(&mut |node| line.push_back(node));
        }
        let mut progress = false;
        for _ in 0..BUDGET {
            let Some(node) = self.next() else { break };
            progress |= self.run_one(cx, node);
        }
        progress
    }

    fn next(&self) -> Option<Arc<Node<Job>>> {
        self.line.borrow_mut().pop_front()
    }

    fn run_one(&self, cx: &Context, node: Arc<Node<Job>>) -> bool {
        let run = node.begin();
        if matches!(run, Run::No) {
            return false;
        }
        match node.payload() {
            Job::BottomHalf { slot, .. } if matches!(run, Run::Deleted) => {
                let freed = self.free(*slot);
                drop(freed); // outside the borrow: its drop may use the context
                false
            }
            Job::BottomHalf { slot, .. } => {
                let callback = self.callbacks.borrow().slots.get(*slot).cloned().flatten();
                if let Some(callback) = callback {
                    cx.call(|cx| callback(cx));
                }
                matches!(run, Run::Normal)
            }
            Job::Once(_) => {
                if let Some(Job::Once(job)) = Node::into_payload(node) {
                    let job = job.into_inner().unwrap_or_else(PoisonError::into_inner);
                    cx.call(job);
                }
                true
            }
        }
    }

    fn free(&self, slot: usize) -> Option<Callback> {
        let mut slab = self.callbacks.borrow_mut();
        let freed = slab.slots[slot].take();
        slab.vacant.push(slot);
        freed
    }

    /// Hands over what is in line, for the context's end.
    pub(crate) fn abandon(&self) -> VecDeque<Arc<Node<Job>>> {
        self.line.take()
    }
}
