//! [`PollSet`]: the sources, and the states that decide which of them are polled.

use std::cell::{Cell, RefCell};
use std::fmt;

use aio_backend::{Flag, Token};

use crate::Source;
use crate::due::Due;
use crate::ends::EndOwed;
use crate::slots::Flags;
use crate::state::State;
use crate::walk::{Change, Core, Course, Start, Walk};

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
/// use aio_backend::{Flag, Token};
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
    pub(crate) core: Core,
    /// The start of the next round, so that a full list starves no source.
    pub(crate) start: Cell<Start>,
    /// The rest of the last round, until it is passed on.
    pub(crate) course: Cell<Course>,
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
            core: Core::new(),
            start: Cell::default(),
            course: Cell::default(),
            idle: RefCell::default(),
        }
    }

    /// Makes an empty set that keeps two flags up to date: `on` is set while poll mode [is on](Self::is_on),
    /// `rechecks` while rechecks are due. While either is set, the set [needs an exit](Self::needs_exit).
    #[must_use]
    pub fn flagged(on: Flag, rechecks: Flag) -> Self {
        let mut set = Self::new();
        set.core.state.on_flag = on;
        set.core.state.slots.get_mut().due = Due::flagged(rechecks);
        set
    }

    #[inline]
    pub(crate) fn state(&self) -> &State {
        &self.core.state
    }

    /// Adds a source, which is promoted. In poll mode its [`poll_begin`](Source::poll_begin) is called before it is polled.
    ///
    /// If there is a source with this token, the new one replaces it, and takes over its suspension, its exclusion and its pending
    /// recheck. A source whose token has the same index and another generation leaves the set, too. If the former source had its
    /// `poll_begin`, the caller must call its `poll_end` by [`EndOwed::finish`]. The set drops the former source. In O(1).
    ///
    /// # Panics
    /// If there are 2^32 - 1 sources of one type. A panic in the drop of a former source propagates; the set
    /// stays usable.
    pub fn join<S: Source>(&self, token: Token, source: S) -> EndOwed<'_> {
        let nests = source.nests();
        let walk = Walk::begin(&self.core);
        let (slot, owed) = self.admit(token, nests);
        match walk {
            Some(mut walk) => walk.place(slot, source),
            None => self.core.leave_change(Change::Place(slot, Box::new(source))),
        }
        owed
    }

    /// Makes a slot for a source that joins. It is `ABSENT` from its array.
    fn admit(&self, token: Token, nests: bool) -> (u32, EndOwed<'_>) {
        let flags = Flags::EMPTY.with_if(Flags::NESTS, nests);
        let mut slots = self.state().slots.borrow_mut();
        let occupant = slots.occupant(token);
        let mut owed = false;
        let slot = match occupant {
            Some(slot) if slots.get(slot).token == token => {
                owed = slots.get(slot).flags().has_any(Flags::BEGUN);
                slots.edit(slot, |before| {
                    let kept = before.without(Flags::BEGUN | Flags::HIT | Flags::DEMOTED | Flags::NESTS);
                    (kept | flags | Flags::ABSENT).with_if(Flags::RECHECK, owed)
                });
                slots.get_mut(slot).last_event = self.state().rounds.get();
                slot
            }
            other => {
                if let Some(former) = other {
                    owed = slots.get(former).flags().has_any(Flags::BEGUN);
                    slots.leave(former);
                    self.core.leave_change(Change::Settle(former));
                }
                slots.add(token, flags, self.state().rounds.get())
            }
        };
        if self.state().is_on() && slots.get(slot).flags().is_promoted() {
            slots.queue_begin(slot);
            self.state().be_careful();
        }
        drop(slots);
        (slot, EndOwed::to_former(self.state(), owed))
    }

    /// Removes a source and drops it, in O(1). It is not polled again. If it had its `poll_begin`, the caller must call its `poll_end`
    /// by [`EndOwed::finish`]. Has no effect if there is no such source.
    ///
    /// Inside a source's `poll`, `poll_begin` or `poll_end` the set drops the source at the end of the walk.
    ///
    /// # Panics
    /// A panic in the source's drop propagates; the set stays usable.
    pub fn leave(&self, token: Token) -> EndOwed<'_> {
        let mut slots = self.state().slots.borrow_mut();
        let Some(slot) = slots.find(token) else {
            return EndOwed::none(self.state());
        };
        let owed = slots.get(slot).flags().has_any(Flags::BEGUN);
        slots.leave(slot);
        drop(slots);
        self.core.settle(slot);
        EndOwed::to_former(self.state(), owed)
    }

    /// Stops polling a source until it is [resumed](Self::resume), in O(1). If the source had its `poll_begin`, the caller must call
    /// its `poll_end` by [`EndOwed::finish`], and must do so before any other use of the set except further suspensions.
    ///
    /// A recheck after the resume finds work that arrived meanwhile. Has no effect if there is no such source.
    pub fn suspend(&self, token: Token) -> EndOwed<'_> {
        let mut slots = self.state().slots.borrow_mut();
        let Some(slot) = slots.find(token) else {
            return EndOwed::none(self.state());
        };
        slots.edit(slot, |flags| flags.without(Flags::DEMOTED) | Flags::SUSPENDED);
        drop(slots);
        self.core.settle(slot);
        EndOwed::to_present(self.state(), token)
    }

    /// Ends the suspension of a source. It is promoted and counts as one that has just had an event. In O(1).
    pub fn resume(&self, token: Token) {
        let mut slots = self.state().slots.borrow_mut();
        let found = slots.find(token);
        let Some(slot) = found.filter(|slot| slots.get(*slot).flags().has_any(Flags::SUSPENDED)) else {
            return;
        };
        slots.get_mut(slot).last_event = self.state().rounds.get();
        slots.edit(slot, |flags| flags.without(Flags::SUSPENDED));
        drop(slots);
        self.core.promoted_again(slot);
    }

    /// Records an event of a source that was not found by polling, such as an event of its descriptor.
    /// Promotes a demoted source. Returns `true` if there is such a source. In O(1).
    pub fn promote(&self, token: Token) -> bool {
        let mut slots = self.state().slots.borrow_mut();
        let Some(slot) = slots.find(token) else {
            return false;
        };
        self.state().last_event.set(self.state().rounds.get());
        slots.get_mut(slot).last_event = self.state().rounds.get();
        let was_demoted = slots.get(slot).flags().has_any(Flags::DEMOTED);
        if was_demoted {
            slots.edit(slot, |flags| flags.without(Flags::DEMOTED));
            drop(slots);
            self.core.promoted_again(slot);
        }
        true
    }

    /// Returns `true` while the set is calling a source: a `poll`, `poll_begin` or `poll_end`, or one that is
    /// [finished](EndOwed::finish). A loop that is nested in such a call must not sleep, because some peers
    /// may not have been notified yet that polling ends.
    #[inline]
    #[must_use]
    pub fn is_calling(&self) -> bool {
        self.state().is_calling()
    }

    /// Returns `true` if there is a source with this token.
    #[must_use]
    pub fn contains(&self, token: Token) -> bool {
        self.state().slots.borrow().find(token).is_some()
    }

    /// Returns `true` if the source exists and is promoted, that is, neither demoted nor suspended.
    #[must_use]
    pub fn is_promoted(&self, token: Token) -> bool {
        let slots = self.state().slots.borrow();
        let slot = slots.find(token);
        slot.is_some_and(|slot| slots.get(slot).flags().is_promoted())
    }

    /// Returns the number of sources, promoted or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().slots.borrow().sources()
    }

    /// Returns `true` if there are no sources.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of promoted sources.
    #[must_use]
    pub fn promoted(&self) -> usize {
        self.state().slots.borrow().promoted()
    }

    /// Calls `each` with the token of every promoted source. Calls nothing inside a walk of the set.
    pub fn for_each_promoted(&self, mut each: impl FnMut(Token)) {
        let Some(walk) = Walk::begin(&self.core) else {
            return;
        };
        walk.visit(|slot| {
            let slot = *self.state().slots.borrow().get(slot);
            if !slot.flags().has_any(Flags::OUT) {
                each(slot.token);
            }
        });
    }
}

impl fmt::Debug for PollSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}
