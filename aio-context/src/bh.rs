//! Bottom halves: callbacks deferred to the next iteration, scheduled from any thread without an allocation.
//!
//! The closure stays on the home thread, in [`BottomHalves`]; what travels through the inbox is a node that names it.
//! This module decides nothing about wake-ups: that is `aio-notify`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use aio_notify::{Dequeued, Item, Message, Node, RunQueue, Urgency};

use crate::Context;
use crate::remote::{Shared, at_home};

/// How many bottom halves one iteration runs at the most; the rest stays queued for the next.
const BUDGET: usize = 4096;

type Callback = Rc<dyn Fn(&Context)>;
type OnceCallback = Box<dyn FnOnce(&Context)>;

/// The payload of a node: the callback in this slot of the home thread's table.
pub(crate) struct Slot {
    index: u32,
    pub(crate) name: &'static str,
}

/// A closure to be run once, on the home thread.
pub(crate) trait Once {
    fn run(&mut self, cx: &Context);
}

/// There until it runs.
struct Closure<F>(Option<F>);

impl<F: FnOnce(&Context)> Once for Closure<F> {
    fn run(&mut self, cx: &Context) {
        if let Some(run) = self.0.take() {
            run(cx);
        }
    }
}

pub(crate) type Job = dyn Once + Send;
pub(crate) type JobMessage = Message<Slot, Job>;

/// What stands in the inbox for a closure that stays at home, in this slot.
struct BySlot(u32);

impl Once for BySlot {
    fn run(&mut self, cx: &Context) {
        if let Some(run) = cx.0.bottom_halves.take_once(self.0) {
            cx.call(run);
        }
    }
}

/// A closure of [`Context::defer`] as it is sent.
pub(crate) fn by_slot(slot: u32) -> Box<JobMessage> {
    Box::new(Message::new(BySlot(slot)))
}

/// A closure as it is sent.
pub(crate) fn message(run: impl FnOnce(&Context) + Send + 'static) -> Box<JobMessage> {
    Box::new(Message::new(Closure(Some(run))))
}

/// A deferred callback; dropping the last clone of the handle deletes it.
///
/// The handle can be used and dropped on any thread; the callback runs on the home thread, at most once per iteration,
/// in the order of scheduling. Once it is deleted it never runs, scheduled or not.
///
/// One exception: a handle that the home thread makes, schedules and drops before the next iteration begins is kept until the
/// callback has run once, so that `cx.bottom_half("flush", flush).schedule();` does what it says. [`delete`](Self::delete) takes
/// that back, too.
#[doc(alias = "QEMUBH")]
#[must_use = "dropped at once, it is deleted and never runs"]
pub struct BottomHalf {
    /// There until it is dropped.
    node: Option<Node<Slot, Job>>,
    shared: Arc<Shared>,
    /// The number of the iteration in which it was made; no number for a clone.
    made_in: u64,
}

/// No iteration has this number.
const NO_ITERATION: u64 = u64::MAX;

impl BottomHalf {
    pub(crate) fn new(slot: u32, name: &'static str, shared: Arc<Shared>) -> Self {
        let node = Some(Node::new(Slot { index: slot, name }));
        let made_in = shared.counters.iterations();
        Self {
            node,
            shared,
            made_in,
        }
    }

    /// Has the callback run once in the next iteration, and wakes the loop. Scheduling it again before it runs changes
    /// nothing; scheduling it while it runs makes it run again in the iteration after. Never blocks, never allocates;
    /// without effect once the context is gone. Not for signal handlers, which can only [notify](crate::Remote::notify).
    #[doc(alias = "qemu_bh_schedule")]
    pub fn schedule(&self) {
        if let Some(node) = &self.node {
            self.shared.post(node, Urgency::Normal);
        }
    }

    /// Has the callback run within 10 ms, without counting as progress and without keeping the loop awake.
    #[doc(alias = "qemu_bh_schedule_idle")]
    pub fn schedule_idle(&self) {
        // A notification would keep a loop from sleeping; one that schedules itself again makes none, being at home.
        if let Some(node) = &self.node {
            self.shared.post(node, Urgency::Idle);
        }
    }

    /// Takes back what was scheduled. If another thread cancels just as the callback starts, it runs once more.
    #[doc(alias = "qemu_bh_cancel")]
    pub fn cancel(&self) {
        if let Some(node) = &self.node {
            node.cancel();
        }
    }

    /// Takes back what was scheduled, and drops this handle: if it is the last one, the callback never runs again.
    #[doc(alias = "qemu_bh_delete")]
    pub fn delete(self) {
        self.cancel();
    }

    /// The context, if this handle was made, scheduled and dropped in one go on its thread.
    fn is_dropped_at_once(&self, node: &Node<Slot, Job>) -> Option<Context> {
        let is_fresh = self.made_in == self.shared.counters.iterations();
        let is_wanted = is_fresh && self.shared.home.is_here() && node.is_scheduled();
        is_wanted.then(|| at_home(self.shared.id)).flatten()
    }

    /// The name given to [`Context::bottom_half`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.node.as_ref().map_or("", |node| node.payload().name)
    }
}

impl Drop for BottomHalf {
    /// After the last handle the node is queued once more, so that the home thread frees the closure.
    fn drop(&mut self) {
        let Some(node) = self.node.take() else { return };
        if let Some(cx) = self.is_dropped_at_once(&node) {
            let shared = self.shared.clone();
            cx.0.bottom_halves.keep(Self {
                node: Some(node),
                shared,
                made_in: NO_ITERATION,
            });
        } else {
            self.shared.retire(node);
        }
    }
}

impl Clone for BottomHalf {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            shared: self.shared.clone(),
            made_in: NO_ITERATION,
        }
    }
}

impl fmt::Debug for BottomHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BottomHalf")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// The home thread's side: the closures, and the nodes that were taken from the inbox and have not run yet.
#[derive(Default)]
pub(crate) struct BottomHalves {
    callbacks: RefCell<Slab<Callback>>,
    /// The closures of [`Context::defer`].
    once: RefCell<Slab<OnceCallback>>,
    /// Handles that were dropped at once, until their callbacks have run.
    kept: RefCell<Vec<BottomHalf>>,
    has_kept: Cell<bool>,
    /// What an iteration has taken; a nested poll goes on where the outer one was, then runs what is new (rule H4).
    queue: RefCell<RunQueue<Slot, Job>>,
}

struct Slab<T> {
    slots: Vec<Option<T>>,
    vacant: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    fn insert(&mut self, value: T) -> u32 {
        if let Some(slot) = self.vacant.pop() {
            self.slots[slot as usize] = Some(value);
            return slot;
        }
        self.slots.push(Some(value));
        self.slots.len() as u32 - 1
    }

    fn remove(&mut self, slot: u32) -> Option<T> {
        let removed = self.slots.get_mut(slot as usize)?.take();
        if removed.is_some() {
            self.vacant.push(slot);
        }
        removed
    }
}

impl BottomHalves {
    pub(crate) fn insert(&self, run: Callback) -> u32 {
        self.callbacks.borrow_mut().insert(run)
    }

    pub(crate) fn insert_once(&self, run: OnceCallback) -> u32 {
        self.once.borrow_mut().insert(run)
    }

    fn take_once(&self, slot: u32) -> Option<OnceCallback> {
        self.once.borrow_mut().remove(slot)
    }

    /// Keeps a handle until its callback has run.
    fn keep(&self, handle: BottomHalf) {
        self.kept.borrow_mut().push(handle);
        self.has_kept.set(true);
    }

    /// The handle that was kept for the callback in `slot`.
    #[cold]
    fn release(&self, slot: Option<u32>) -> Option<BottomHalf> {
        let mut kept = self.kept.borrow_mut();
        let is_its = |handle: &BottomHalf| handle.node.as_ref().map(|node| node.payload().index) == slot;
        let place = kept.iter().position(is_its)?;
        let released = kept.swap_remove(place);
        self.has_kept.set(!kept.is_empty());
        Some(released)
    }

    /// Whether something was taken and has not run.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    /// Takes what was scheduled and runs it; true if a callback ran that counts as progress (rules H2-H4, H8).
    #[inline(always)]
    pub(crate) fn run(&self, cx: &Context, shared: &Shared) -> bool {
        (shared.inbox.pending() || self.is_waiting()) && self.run_queue(cx, shared)
    }

    #[inline(never)]
    fn run_queue(&self, cx: &Context, shared: &Shared) -> bool {
        self.queue.borrow_mut().take(&shared.inbox);
        let mut progress = false;
        for _ in 0..BUDGET {
            let Some(dequeued) = self.next() else { break };
            progress |= self.run_one(cx, dequeued);
        }
        progress
    }

    #[inline]
    fn next(&self) -> Option<Dequeued<Slot, Job>> {
        self.queue.borrow_mut().pop()
    }

    #[inline]
    fn run_one(&self, cx: &Context, dequeued: Dequeued<Slot, Job>) -> bool {
        let index = dequeued.payload().map(|slot| slot.index);
        // Dropped when the callback is done, also if it panics.
        let _kept = self.has_kept.get().then(|| self.release(index));
        let is_progress = match dequeued.begin() {
            Item::Cancelled => return false,
            Item::Idle => false,
            Item::Normal => true,
            Item::Retired(slot) => {
                let freed = self.free(slot.index);
                drop(freed); // outside the borrow: its drop may use the context
                return false;
            }
            Item::Sent(mut job) => {
                cx.call(|cx| job.contents.run(cx));
                return true;
            }
        };
        let callback = index.and_then(|index| self.callbacks.borrow().slots.get(index as usize)?.clone());
        if let Some(callback) = callback {
            cx.call(|cx| callback(cx));
        }
        is_progress
    }

    fn free(&self, slot: u32) -> Option<Callback> {
        self.callbacks.borrow_mut().remove(slot)
    }

    /// Hands over what is queued, for the context's end.
    pub(crate) fn abandon(&self) -> RunQueue<Slot, Job> {
        self.queue.take()
    }
}
