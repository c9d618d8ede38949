//! [`Node`]: something that can be in an inbox at most once, with what it is to do.
//!
//! # State
//! | bit | legend |
//! |---|---|
//! | QUEUED | somebody holds a share who will call `begin`: the inbox, or the loop that has taken it |
//! | SCHEDULED | wanted |
//! | IDLE | wanted, without hurry |
//! | DELETED | never to run again |
//! | BURIED | `begin` has said so |
//!
//! Only who turns QUEUED on may push the node, so its link is never used twice. A node that is wanted is queued: every
//! transition that sets SCHEDULED or IDLE sets QUEUED in the same step.

use std::fmt;
use std::sync::Arc;

use crate::inbox::Urgency;
use crate::sync::{AtomicPtr, AtomicU32, Fault, Ordering, planted};

const QUEUED: u32 = 1;
const SCHEDULED: u32 = 2;
const IDLE: u32 = 4;
const DELETED: u32 = 8;
const BURIED: u32 = 16;

/// What [`Node::begin`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Nothing: it was cancelled.
    No,
    /// Run it.
    Normal,
    /// Run it; it had no hurry, and is no progress.
    Idle,
    /// It was deleted: free what belongs to it. Said once.
    Deleted,
}

/// A message, or a callback's stand-in: can be posted again and again, and is in the inbox at most once.
pub struct Node<T> {
    state: AtomicU32,
    pub(crate) next: AtomicPtr<Node<T>>,
    payload: T,
}

impl<T> Node<T> {
    /// A node that is not queued.
    pub fn new(payload: T) -> Arc<Self> {
        Self::with_state(payload, 0)
    }

    /// A node as if it were posted, for who pushes it at once.
    pub(crate) fn queued(payload: T) -> Arc<Self> {
        Self::with_state(payload, QUEUED | SCHEDULED)
    }

    fn with_state(payload: T, state: u32) -> Arc<Self> {
        let next = AtomicPtr::new(std::ptr::null_mut());
        Arc::new(Self {
            state: AtomicU32::new(state),
            next,
            payload,
        })
    }

    /// What it carries.
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// What it carries, if this is the last share.
    #[must_use]
    pub fn into_payload(self: Arc<Self>) -> Option<T> {
        Arc::into_inner(self).map(|node| node.payload)
    }

    /// Marks it as wanted; true if the caller is to push it.
    ///
    /// `QUEUED: any -> on; SCHEDULED or IDLE: on`
    ///
    /// Ordering: releases what the poster wrote before to `begin`, also when somebody else has pushed the node.
    pub(crate) fn want(&self, urgency: Urgency) -> bool {
        let wanted = match urgency {
            Urgency::Normal => SCHEDULED,
            Urgency::Idle => IDLE,
        };
        let before = self.state.fetch_or(QUEUED | wanted, Ordering::AcqRel);
        before & QUEUED == 0 || planted(Fault::PushTwice)
    }

    /// Takes back that it is queued, for who could not push it.
    pub(crate) fn unqueue(&self) {
        self.state.fetch_and(!QUEUED, Ordering::Release);
    }

    /// Called by the loop for each node that it has taken, right before running it: says what to do. Whatever is posted
    /// from now on, also while it runs, queues the node again.
    ///
    /// `QUEUED, SCHEDULED, IDLE: any -> off; BURIED: on if DELETED`
    ///
    /// Ordering: one step, so that a post either is part of this run or finds the node not queued and pushes it; acquires
    /// what the posters released.
    pub fn begin(&self) -> Run {
        let mut gone = QUEUED | SCHEDULED | IDLE;
        if planted(Fault::BeginInTwoSteps) {
            let before = self.state.load(Ordering::Acquire);
            self.state.store(before & !gone, Ordering::Release);
            return Self::verdict(before);
        }
        if planted(Fault::BeginKeepsQueued) {
            gone &= !QUEUED;
        }
        let before = self.state.fetch_and(!gone, Ordering::AcqRel);
        if before & DELETED != 0 {
            let buried = self.state.fetch_or(BURIED, Ordering::Relaxed) & BURIED != 0;
            return if buried { Run::No } else { Run::Deleted };
        }
        Self::verdict(before)
    }

    fn verdict(before: u32) -> Run {
        if before & SCHEDULED != 0 {
            Run::Normal
        } else if before & IDLE != 0 {
            Run::Idle
        } else {
            Run::No
        }
    }

    /// Takes back what was posted and has not begun. If the loop is just beginning it, it runs once more.
    ///
    /// `SCHEDULED, IDLE: any -> off`
    pub fn cancel(&self) {
        self.state.fetch_and(!(SCHEDULED | IDLE), Ordering::AcqRel);
    }

    /// Sees to it that it never runs again. Post it once more, so that the loop learns of it and frees what belongs to it.
    ///
    /// `DELETED: any -> on`
    ///
    /// Ordering: releases the deleter's last writes to `begin`.
    pub fn delete(&self) {
        self.state.fetch_or(DELETED, Ordering::AcqRel);
    }

    /// Whether it is wanted and has not begun.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        state & DELETED == 0 && state & (SCHEDULED | IDLE) != 0
    }
}

impl<T: fmt::Debug> fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("scheduled", &self.is_scheduled())
            .field("payload", &self.payload)
            .finish()
    }
}
