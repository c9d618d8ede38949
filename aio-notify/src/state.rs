//! [`State`]: whether a node is wanted, is queued, and has handles left; and which step frees it.
//!
//! # State
//! | bits | legend |
//! |---|---|
//! | QUEUED | the node is in an inbox or a run queue, once, which has a reference to it |
//! | SCHEDULED | wanted |
//! | IDLE | wanted, without urgency |
//! | the rest | how many handles there are; each is a reference |
//!
//! | handles | QUEUED | the node is | freed by |
//! |---|---|---|---|
//! | some | off | at rest | |
//! | some | on | queued, wanted or cancelled | |
//! | none | on | queued for the last time, or a message, which never had a handle | the loop, when it begins the node |
//! | none | off | unreferenced | the step that led here |
//!
//! Only the step that turns QUEUED on may push the node, so its link is never used twice. Only the owner of the queue's reference
//! turns QUEUED off: the loop that has dequeued the node, or the thread that found the inbox closed. A node that is wanted is
//! queued: every transition that sets SCHEDULED or IDLE sets QUEUED in the same step.

use crate::sync::{AtomicU64, Ordering, faulty};

const QUEUED: u64 = 1;
const SCHEDULED: u64 = 2;
const IDLE: u64 = 4;
const WANTED: u64 = SCHEDULED | IDLE;
/// One handle. There is room for more than can be made while a machine lasts.
const HANDLE: u64 = 8;

/// How soon a node shall run.
///
/// # Examples
/// ```
/// use aio_notify::{Inbox, Node, Urgency};
///
/// let (inbox, node) = (Inbox::<()>::new(), Node::new(()));
/// inbox.post(&node, Urgency::Idle);
/// // A loop that has only this may sleep for a while.
/// assert!(inbox.pending() && !inbox.has_normal());
/// inbox.post(&node, Urgency::Normal);
/// assert!(inbox.has_normal());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// In the next iteration.
    Normal,
    /// Some time soon; does not keep the loop awake.
    Idle,
}

/// What the loop does with a node that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// Nothing: it was cancelled.
    Cancelled,
    /// Runs it.
    Normal,
    /// Runs it; it was not urgent.
    Idle,
    /// Frees it: there is no other reference.
    Last,
}

/// The state of a node. The tables above list its values.
pub(crate) struct State(AtomicU64);

impl State {
    /// At rest, with one handle.
    pub(crate) fn at_rest() -> Self {
        Self(AtomicU64::new(HANDLE))
    }

    /// Without a handle, as if it had been posted, to be pushed at once.
    pub(crate) fn sent() -> Self {
        Self(AtomicU64::new(QUEUED | SCHEDULED))
    }

    /// Marks the node as wanted. True: the caller, which has a handle, pushes it.
    ///
    /// `QUEUED: any -> on; SCHEDULED or IDLE: on`
    ///
    /// Ordering: releases what the poster wrote before to `begin`, also when another thread has pushed the node; acquires that
    /// the loop has read the link.
    #[inline]
    pub(crate) fn want(&self, urgency: Urgency) -> bool {
        let wanted = match urgency {
            Urgency::Normal => SCHEDULED,
            Urgency::Idle => IDLE,
        };
        let order = faulty!(WantRelaxed, Ordering::AcqRel, Ordering::Relaxed);
        let before = self.0.fetch_or(QUEUED | wanted, order);
        faulty!(PushTwice, before & QUEUED == 0, true)
    }

    /// Gives up the queue's reference, which the caller owns, and returns what was wanted. A post from now on, also while the node
    /// runs, queues it again. `Last` leaves the reference, and with it the node, to the caller.
    ///
    /// `QUEUED, SCHEDULED, IDLE: any -> off; handles: none -> as it was`
    ///
    /// Ordering: one step, so that a post either is part of this run or finds the node not queued and pushes it; acquires
    /// what the posters released, and what was done by handles before they were given up; releases that the link was read.
    #[inline]
    pub(crate) fn begin(&self) -> Begun {
        let gone = faulty!(BeginKeepsQueued, QUEUED | WANTED, WANTED);
        let order = faulty!(BeginRelaxed, Ordering::AcqRel, Ordering::Relaxed);
        let load_order = faulty!(BeginRelaxed, Ordering::Acquire, Ordering::Relaxed);
        let mut before = self.0.load(load_order);
        loop {
            if before < HANDLE {
                return Begun::Last;
            }
            let after = before & !gone;
            faulty!(BeginInTwoSteps: break self.0.store(after, Ordering::Release));
            match self.0.compare_exchange_weak(before, after, order, load_order) {
                Ok(_) => break,
                Err(now) => before = now,
            }
        }
        if before & SCHEDULED != 0 {
            Begun::Normal
        } else if before & IDLE != 0 {
            Begun::Idle
        } else {
            Begun::Cancelled
        }
    }

    /// Takes back what was posted and has not begun. If the loop is just beginning the node, it runs once more.
    ///
    /// `SCHEDULED, IDLE: any -> off`
    pub(crate) fn cancel(&self) {
        self.0.fetch_and(!WANTED, Ordering::AcqRel);
    }

    /// Counts one more handle; the caller has one.
    ///
    /// `handles: n -> n + 1`
    ///
    /// Ordering: none; the handle that is copied keeps the node.
    pub(crate) fn share(&self) {
        self.0.fetch_add(HANDLE, Ordering::Relaxed);
    }

    /// Gives up a handle. True: it was the last reference, and the caller frees the node.
    ///
    /// `handles: n -> n - 1`
    ///
    /// Ordering: releases what was done by this handle, and acquires what was done by the others, so that the node is freed
    /// after all of it.
    pub(crate) fn release(&self) -> bool {
        let order = faulty!(ReleaseRelaxed, Ordering::AcqRel, Ordering::Relaxed);
        self.0.fetch_sub(HANDLE, order) == HANDLE
    }

    /// Gives up a handle. True: it was the last one, and the caller pushes the node once more.
    ///
    /// `handles: n -> n - 1; QUEUED: on if none are left`
    ///
    /// Ordering: as `release`. One step, so that there is never a node without handles that no thread is going to push.
    pub(crate) fn retire(&self) -> bool {
        let mut before = self.0.load(Ordering::Relaxed);
        faulty!(RetireInTwoSteps: if before >= 2 * HANDLE { self.release(); return false });
        let order = faulty!(RetireRelaxed, Ordering::AcqRel, Ordering::Relaxed);
        loop {
            let left = before - HANDLE;
            let after = if left < HANDLE { left | QUEUED } else { left };
            match self
                .0
                .compare_exchange_weak(before, after, order, Ordering::Relaxed)
            {
                Ok(_) => return after & !before & QUEUED != 0,
                Err(now) => before = now,
            }
        }
    }

    /// Whether it is wanted, has not begun, and has a handle that could cancel it.
    pub(crate) fn is_scheduled(&self) -> bool {
        let state = self.0.load(Ordering::Acquire);
        state >= HANDLE && state & WANTED != 0
    }
}
