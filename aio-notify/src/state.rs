//! [`State`]: whether a node is wanted, is queued, and has handles left, with the steps that free it.
//!
//! # State
//! | bits | legend |
//! |---|---|
//! | QUEUED | the node is in an inbox or a run queue, once, which has a reference to it |
//! | SCHEDULED | wanted |
//! | IDLE | wanted, without urgency |
//! | the rest | the number of handles; each is a reference |
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
/// One handle. The remaining bits have room for more handles than can ever be made.
const HANDLE: u64 = 8;

/// The urgency of a node.
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
    /// It runs in the next iteration.
    Normal,
    /// It runs some time soon, and does not keep the loop awake.
    Idle,
}

/// The action of the loop for a node that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// Nothing: the node was cancelled.
    Cancelled,
    /// Run the node.
    Normal,
    /// Run the node, which was not urgent.
    Idle,
    /// Free the node: there is no other reference.
    Last,
}

/// The state of a node. The tables above list its values.
pub(crate) struct State(AtomicU64);

impl State {
    /// Makes the state of a node at rest, with one handle.
    pub(crate) fn at_rest() -> Self {
        Self(AtomicU64::new(HANDLE))
    }

    /// Makes a state without a handle, as if the node had been posted. The caller pushes it at once.
    pub(crate) fn sent() -> Self {
        Self(AtomicU64::new(QUEUED | SCHEDULED))
    }

    /// Marks the node as wanted. If this returns `true`, the caller, which has a handle, pushes the node.
    ///
    /// `QUEUED: any -> on; SCHEDULED or IDLE: on`
    ///
    /// Ordering: releases the poster's earlier writes to `begin`, even if another thread has pushed the node;
    /// acquires the loop's read of the link.
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

    /// Gives up the queue's reference, which the caller owns, and returns the action. A later post, also
    /// while the node runs, queues it again. `Last` leaves the reference, and with it the node, to the
    /// caller.
    ///
    /// `QUEUED, SCHEDULED, IDLE: any -> off; handles: none -> as it was`
    ///
    /// Ordering: one step, so that a post either is part of this run or finds the node not queued and pushes
    /// it. Acquires the writes that the posters released, and all uses of handles before they were given up;
    /// releases the read of the link.
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

    /// Cancels a post that has not begun. If the loop is just beginning the node, it runs once more.
    ///
    /// `SCHEDULED, IDLE: any -> off`
    pub(crate) fn cancel(&self) {
        self.0.fetch_and(!WANTED, Ordering::AcqRel);
    }

    /// Counts one more handle. The caller has one.
    ///
    /// `handles: n -> n + 1`
    ///
    /// Ordering: none. The copied handle keeps the node alive.
    pub(crate) fn share(&self) {
        self.0.fetch_add(HANDLE, Ordering::Relaxed);
    }

    /// Gives up a handle. If this returns `true`, it was the last reference, and the caller frees the node.
    ///
    /// `handles: n -> n - 1`
    ///
    /// Ordering: releases the uses of this handle, and acquires those of the others, so that the node is
    /// freed after all of them.
    pub(crate) fn release(&self) -> bool {
        let order = faulty!(ReleaseRelaxed, Ordering::AcqRel, Ordering::Relaxed);
        self.0.fetch_sub(HANDLE, order) == HANDLE
    }

    /// Gives up a handle. If this returns `true`, it was the last one, and the caller pushes the node once
    /// more.
    ///
    /// `handles: n -> n - 1; QUEUED: on if none are left`
    ///
    /// Ordering: as `release`. One step, so that a node without handles always has a thread that is going to
    /// push it.
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

    /// Returns whether it is wanted, has not begun, and has a handle that could cancel it.
    pub(crate) fn is_scheduled(&self) -> bool {
        let state = self.0.load(Ordering::Acquire);
        state >= HANDLE && state & WANTED != 0
    }
}
