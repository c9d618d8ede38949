//! [`State`]: the flags of the sources, and the counters of the set. The arrays follow the flags.

use std::cell::{Cell, RefCell};
use std::fmt;

use aio_backend::{Flag, Token};

use crate::slots::{Flags, Slots};

/// The parts of a set that the loops over the arrays and a [due](crate::EndOwed) `poll_end` use.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) slots: RefCell<Slots>,
    /// The number of reasons for a round to check flags: one for each exclusion, and one for `dirty`.
    care: Cell<usize>,
    /// Set while a change waits for the end of a walk, or a `poll_begin` is pending.
    dirty: Cell<bool>,
    /// The number of walks and calls of a due `poll_end` in progress.
    calls: Cell<u32>,
    /// Set while poll mode is on.
    on: Cell<bool>,
    /// The same, for other parts of the program.
    pub(crate) on_flag: Flag,
    /// The number of rounds; wraps around.
    pub(crate) rounds: Cell<u32>,
    /// The round of the last event of any source.
    pub(crate) last_event: Cell<u32>,
}

impl State {
    pub(crate) fn has_begun(&self, token: Token) -> bool {
        let slots = self.slots.borrow();
        let slot = slots.find(token);
        slot.is_some_and(|slot| slots.get(slot).flags().has_any(Flags::BEGUN))
    }

    /// Records the due `poll_end` of a suspended source. Returns `true` if the caller has to call it.
    pub(crate) fn take_owed_end(&self, token: Token) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.find(token) else {
            return false;
        };
        let is_owed = slots.take_end(slot);
        slots.queue_recheck(slot);
        let is_promoted = slots.get(slot).flags().is_promoted();
        drop(slots);
        if is_owed && is_promoted {
            // The source was resumed meanwhile.
            self.queue_begin(slot);
        }
        is_owed
    }

    /// In poll mode, queues a source's `poll_begin`, which comes before its next poll.
    pub(crate) fn queue_begin(&self, slot: u32) {
        if self.is_on() {
            self.slots.borrow_mut().queue_begin(slot);
            self.be_careful();
        }
    }

    /// Returns `true` if poll mode is on.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.get()
    }

    pub(crate) fn set_on(&self, is_on: bool) {
        self.on.set(is_on);
        self.on_flag.set(is_on);
    }

    /// Returns `true` if a round has to check the flags of each source.
    #[inline]
    pub(crate) fn is_careful(&self) -> bool {
        self.care.get() > 0
    }

    #[inline]
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.get()
    }

    pub(crate) fn be_careful(&self) {
        if !self.dirty.replace(true) {
            self.add_care();
        }
    }

    /// Records that no change and no `poll_begin` is pending any more.
    pub(crate) fn set_clean(&self) {
        if self.dirty.replace(false) {
            self.drop_care();
        }
    }

    #[inline]
    pub(crate) fn add_care(&self) {
        self.care.set(self.care.get() + 1);
    }

    #[inline]
    pub(crate) fn drop_care(&self) {
        self.care.set(self.care.get() - 1);
    }

    /// Returns `true` if a round leaves out this promoted source. Called only if a round has to be careful.
    ///
    /// In poll mode a source without its `poll_begin` is left out, unless it may have work without a
    /// notification. (A source that is replaced in each `poll_begin` never gets its own.)
    pub(crate) fn skips(&self, slot: u32) -> bool {
        let flags = self.slots.borrow().get(slot).flags();
        flags.has_any(Flags::SKIPPED) || (self.is_on() && !flags.has_any(Flags::BEGUN | Flags::RECHECK))
    }

    #[inline]
    pub(crate) fn enter_call(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    #[inline]
    pub(crate) fn leave_call(&self) {
        self.calls.set(self.calls.get() - 1);
    }

    #[inline]
    pub(crate) fn is_calling(&self) -> bool {
        self.calls.get() > 0
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollSet")
            .field("sources", &self.slots.borrow().sources())
            .field("promoted", &self.slots.borrow().promoted())
            .field("is_on", &self.is_on())
            .field("is_calling", &self.is_calling())
            .finish_non_exhaustive()
    }
}
