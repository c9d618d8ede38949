//! [`PollSet`]: the sources, and which of them are polled.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;

use aio_backend::Token;

use crate::Source;
use crate::arrays::Arrays;
use crate::ends::EndOwed;
use crate::slots::{Flags, Slots};
use crate::walk::{Change, Start, Walk};

/// The sources that an event loop polls.
///
/// A source is *promoted* when it joins, and is polled in each [round](Self::round). An idle one is
/// [demoted](Self::demote_idle), and promoted again by its next [event](Self::promote). A source can be
/// [suspended](Self::suspend), and is [excluded](Self::exclude) while its work is done.
///
/// The set belongs to one thread. All methods take `&self`, and all may be called from inside a source. Tokens are the
/// caller's; the index of a token is an index into an array here, so they should be dense.
///
/// ```
/// use std::cell::Cell;
/// use std::ops::ControlFlow;
/// use std::rc::Rc;
/// use aio_backend::Token;
/// use aio_pollset::{PollSet, Source};
///
/// struct Queue(Cell<u32>);
///
/// impl Source for Queue {
///     fn poll(&self) -> bool {
///         self.0.get() > 0
///     }
/// }
///
/// let (set, token) = (PollSet::new(), Token::new(0, 0));
/// let queue = Rc::new(Queue(Cell::new(0)));
/// let _ = set.join(token, queue.clone());
/// set.enter();
/// assert!(!set.round(|_| ControlFlow::Continue(())));
///
/// queue.0.set(3);
/// let mut hits = Vec::new();
/// let found = set.round(|token| {
///     hits.push(token);
///     ControlFlow::Continue(())
/// });
/// assert!(found && hits == [token]);
/// assert_eq!(set.serve(token, || queue.0.replace(0)), Some(3));
///
/// // Before the loop sleeps: every source has its `poll_end`, and is polled once more.
/// let must_not_sleep = set.exit(|_| ControlFlow::Continue(()));
/// assert!(!must_not_sleep);
/// set.leave(token).finish(|| queue.poll_end());
/// ```
pub struct PollSet {
    /// `None` while a walk has them.
    pub(crate) arrays: Cell<Option<Box<Arrays>>>,
    pub(crate) slots: RefCell<Slots>,
    changes: RefCell<VecDeque<Change>>,
    /// The number of reasons why a round has to check flags: one for each exclusion, and one for `dirty`.
    care: Cell<usize>,
    /// A change waits for the end of a walk, or a `poll_begin` is pending.
    dirty: Cell<bool>,
    /// The number of walks and owed `poll_end`s in progress.
    calls: Cell<u32>,
    /// Poll mode is on.
    pub(crate) on: Cell<bool>,
    /// The start of the next round, so that a full list starves no source.
    pub(crate) start: Cell<Start>,
    /// Counts rounds; wraps around.
    pub(crate) rounds: Cell<u32>,
    /// The round of the last event of any source.
    pub(crate) last_event: Cell<u32>,
    /// A reused list for the idle sources of a demotion.
    pub(crate) idle: RefCell<Vec<u32>>,
}

impl Default for PollSet {
    fn default() -> Self {
        Self::new()
    }
}

impl PollSet {
    /// Makes an empty set, out of poll mode.
    #[must_use]
    pub fn new() -> Self {
        Self {
            arrays: Cell::new(Some(Box::default())),
            slots: RefCell::default(),
            changes: RefCell::default(),
            care: Cell::new(0),
            dirty: Cell::new(false),
            calls: Cell::new(0),
            on: Cell::new(false),
            start: Cell::default(),
            rounds: Cell::new(0),
            last_event: Cell::new(0),
            idle: RefCell::default(),
        }
    }

    /// Adds a source, which is promoted. In poll mode its [`poll_begin`](Source::poll_begin) is called before it is polled.
    ///
    /// If there is a source with this token, the new one replaces it, and takes over its suspension, its exclusion and its pending
    /// recheck. A source whose token has the same index and another generation leaves the set, too. If the former source had its
    /// `poll_begin`, the caller must call its `poll_end` by [`EndOwed::finish`]. The set drops the former source. In O(1).
    ///
    /// # Panics
    /// If there are 2^32 - 1 sources of one type. A panic in the drop of a former source goes through; the set is usable.
    pub fn join<S: Source>(&self, token: Token, source: S) -> EndOwed<'_> {
        let nests = source.nests();
        let walk = Walk::begin(self);
        let (slot, owed) = self.admit(token, nests);
        match walk {
            Some(mut walk) => walk.place(slot, source),
            None => self.leave_change(Change::Place(slot, Box::new(source))),
        }
        owed
    }

    /// Makes a slot for a source that joins, which is `ABSENT` from its array.
    fn admit(&self, token: Token, nests: bool) -> (u32, EndOwed<'_>) {
        let flags = Flags::EMPTY.with_if(Flags::NESTS, nests);
        let mut slots = self.slots.borrow_mut();
        let occupant = slots.occupant(token);
        let mut owed = false;
        let slot = match occupant {
            Some(slot) if slots.get(slot).token == token => {
                owed = slots.get(slot).flags().has_any(Flags::BEGUN);
                slots.edit(slot, |before| {
                    let kept = before.without(Flags::BEGUN | Flags::HIT | Flags::DEMOTED | Flags::NESTS);
                    (kept | flags | Flags::ABSENT).with_if(Flags::RECHECK, owed)
                });
                slots.get_mut(slot).last_event = self.rounds.get();
                slot
            }
            other => {
                if let Some(former) = other {
                    owed = slots.get(former).flags().has_any(Flags::BEGUN);
                    slots.leave(former);
                    self.leave_change(Change::Settle(former));
                }
                slots.add(token, flags, self.rounds.get())
            }
        };
        if self.on.get() && slots.get(slot).flags().is_promoted() {
            slots.queue_begin(slot);
            self.be_careful();
        }
        drop(slots);
        (slot, EndOwed::to_former(self, owed))
    }

    /// Removes a source and drops it, in O(1). It is not polled again. If it had its `poll_begin`, the caller must call its `poll_end`
    /// by [`EndOwed::finish`]. Has no effect if there is no such source.
    ///
    /// Inside a source's `poll`, `poll_begin` or `poll_end` the set drops the source at the end of the walk.
    ///
    /// # Panics
    /// A panic in the source's drop goes through; the set is usable.
    pub fn leave(&self, token: Token) -> EndOwed<'_> {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.find(token) else {
            return EndOwed::none(self);
        };
        let owed = slots.get(slot).flags().has_any(Flags::BEGUN);
        slots.leave(slot);
        drop(slots);
        self.settle(slot);
        EndOwed::to_former(self, owed)
    }

    /// Stops polling a source until it is [resumed](Self::resume), in O(1). If the source had its `poll_begin`, the caller must call
    /// its `poll_end` by [`EndOwed::finish`], and must do so before any other use of the set except further suspensions.
    ///
    /// A recheck after the resume finds work that arrived meanwhile. Has no effect if there is no such source.
    pub fn suspend(&self, token: Token) -> EndOwed<'_> {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.find(token) else {
            return EndOwed::none(self);
        };
        slots.edit(slot, |flags| flags.without(Flags::DEMOTED) | Flags::SUSPENDED);
        drop(slots);
        self.settle(slot);
        EndOwed::to_present(self, token)
    }

    pub(crate) fn has_begun(&self, token: Token) -> bool {
        let slots = self.slots.borrow();
        let slot = slots.find(token);
        slot.is_some_and(|slot| slots.get(slot).flags().has_any(Flags::BEGUN))
    }

    /// Takes the `poll_end` that a suspended source is owed.
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
            // It was resumed meanwhile.
            self.queue_begin(slot);
        }
        is_owed
    }

    /// Ends the suspension of a source, which is promoted and counts as one that has just had an event. In O(1).
    pub fn resume(&self, token: Token) {
        let mut slots = self.slots.borrow_mut();
        let found = slots.find(token);
        let Some(slot) = found.filter(|slot| slots.get(*slot).flags().has_any(Flags::SUSPENDED)) else {
            return;
        };
        slots.get_mut(slot).last_event = self.rounds.get();
        slots.edit(slot, |flags| flags.without(Flags::SUSPENDED));
        drop(slots);
        self.promoted_again(slot);
    }

    /// Records an event of a source that was not found by polling, such as an event of its descriptor. Promotes a demoted source.
    /// Returns whether there is such a source. In O(1).
    pub fn promote(&self, token: Token) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.find(token) else {
            return false;
        };
        self.last_event.set(self.rounds.get());
        slots.get_mut(slot).last_event = self.rounds.get();
        let was_demoted = slots.get(slot).flags().has_any(Flags::DEMOTED);
        if was_demoted {
            slots.edit(slot, |flags| flags.without(Flags::DEMOTED));
            drop(slots);
            self.promoted_again(slot);
        }
        true
    }

    /// Moves a source that is promoted by its flags into the promoted part of its array.
    pub(crate) fn promoted_again(&self, slot: u32) {
        self.queue_begin(slot);
        self.settle(slot);
    }

    /// In poll mode, queues a source's `poll_begin`, which comes before its next poll.
    pub(crate) fn queue_begin(&self, slot: u32) {
        if self.on.get() {
            self.slots.borrow_mut().queue_begin(slot);
            self.be_careful();
        }
    }

    /// Updates the arrays after a change of a slot's flags: now, or at the end of the walk in progress.
    pub(crate) fn settle(&self, slot: u32) {
        match Walk::begin(self) {
            Some(mut walk) => walk.settle(slot),
            None => self.leave_change(Change::Settle(slot)),
        }
    }

    pub(crate) fn leave_change(&self, change: Change) {
        self.changes.borrow_mut().push_back(change);
        self.be_careful();
    }

    pub(crate) fn next_change(&self) -> Option<Change> {
        self.changes.borrow_mut().pop_front()
    }

    /// Returns whether a round has to check the flags of each source.
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

    /// Updates `dirty`: whether changes or begins are still pending.
    pub(crate) fn review_care(&self) {
        let is_dirty = self.slots.borrow().begins() + self.changes.borrow().len() > 0;
        if !is_dirty && self.dirty.replace(false) {
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

    /// Returns whether a round leaves out this promoted source. Called only if a round has to be careful.
    ///
    /// In poll mode a source without its `poll_begin` is left out, unless it may have work without a notification: a source that is
    /// replaced in each `poll_begin` never gets past it.
    pub(crate) fn skips(&self, slot: u32) -> bool {
        let flags = self.slots.borrow().get(slot).flags();
        flags.has_any(Flags::SKIPPED) || (self.on.get() && !flags.has_any(Flags::BEGUN | Flags::RECHECK))
    }

    #[inline]
    pub(crate) fn enter_call(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    #[inline]
    pub(crate) fn leave_call(&self) {
        self.calls.set(self.calls.get() - 1);
    }

    /// Returns whether the set is calling a source: a `poll`, `poll_begin` or `poll_end`, or an [owed](EndOwed::finish) one.
    /// A loop that is nested in such a call must not sleep, because some peers may not know yet that polling ends.
    #[inline]
    #[must_use]
    pub fn is_calling(&self) -> bool {
        self.calls.get() > 0
    }

    /// Returns whether there is a source with this token.
    #[must_use]
    pub fn contains(&self, token: Token) -> bool {
        self.slots.borrow().find(token).is_some()
    }

    /// Returns whether the source exists and is promoted, that is, neither demoted nor suspended.
    #[must_use]
    pub fn is_promoted(&self, token: Token) -> bool {
        let slots = self.slots.borrow();
        let slot = slots.find(token);
        slot.is_some_and(|slot| slots.get(slot).flags().is_promoted())
    }

    /// Returns the number of sources, promoted or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.borrow().sources()
    }

    /// Returns whether there are no sources.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of promoted sources.
    #[must_use]
    pub fn promoted(&self) -> usize {
        self.slots.borrow().promoted()
    }

    /// Calls `each` with the token of every promoted source. Calls nothing inside a walk of the set.
    pub fn for_each_promoted(&self, mut each: impl FnMut(Token)) {
        let Some(walk) = Walk::begin(self) else { return };
        walk.visit(|slot| {
            let slot = *self.slots.borrow().get(slot);
            if !slot.flags().has_any(Flags::OUT) {
                each(slot.token);
            }
        });
    }
}

impl fmt::Debug for PollSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollSet")
            .field("sources", &self.len())
            .field("promoted", &self.promoted())
            .field("is_on", &self.on.get())
            .field("is_calling", &self.is_calling())
            .finish_non_exhaustive()
    }
}
