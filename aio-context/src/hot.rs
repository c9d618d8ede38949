//! [`Hot`]: the polled handlers that are asked in every round, and what changes while they are walked.
//!
//! It decides nothing about when to ask or for how long; that is `polling`. It never calls a handler while anything is
//! borrowed: a walk takes the whole set out and brings it back. How the set is made is in `by_type.rs`.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

use aio_backend::Token;

use crate::by_type::{ByType, Join, Place};
use crate::handler::Pollable;

/// A handler that came to the set, or that left it.
type Change = (Token, Option<Rc<dyn Join>>);

/// The handlers that are polled, and which of them are in poll mode.
pub(crate) struct Hot {
    /// `None` while a walk has it; changes are then noted down and applied when it is back.
    set: Cell<Option<Box<ByType>>>,
    changes: RefCell<Vec<Change>>,
    walked: Cell<bool>,
    /// There are changes.
    dirty: Cell<bool>,
    /// Poll mode is on: handlers have had their `poll_begin`.
    pub(crate) mode: Cell<bool>,
    /// Came into the set since poll mode was entered: `poll_begin` is still to be called.
    pub(crate) newcomers: RefCell<Vec<Token>>,
    /// Lost their `poll_begin`, and have not been asked since, or said yes and have not been called: asked before every wait.
    unasked: RefCell<Vec<Token>>,
    /// Handlers of which a callback is running, innermost last; not polled meanwhile (rule A9).
    busy: RefCell<Vec<Token>>,
    /// Where the next round starts, so that a full ready list starves nobody.
    start: Cell<Place>,
    /// Counts rounds; wraps around.
    rounds: Cell<u32>,
    /// The round of the last event of any polled handler.
    last_event: Cell<u32>,
}

impl Default for Hot {
    fn default() -> Self {
        Self {
            set: Cell::new(Some(Box::default())),
            changes: RefCell::default(),
            walked: Cell::new(false),
            dirty: Cell::new(false),
            mode: Cell::new(false),
            newcomers: RefCell::default(),
            unasked: RefCell::default(),
            busy: RefCell::default(),
            start: Cell::default(),
            rounds: Cell::new(0),
            last_event: Cell::new(0),
        }
    }
}

impl Hot {
    pub(crate) fn insert(&self, token: Token, handler: Rc<dyn Join>) {
        if self.mode.get() {
            self.newcomers.borrow_mut().push(token);
        }
        self.change(token, Some(handler));
    }

    pub(crate) fn remove(&self, token: Token) {
        self.change(token, None);
    }

    /// Has `token` asked before the next wait.
    pub(crate) fn ask_once(&self, token: Token) {
        self.unasked.borrow_mut().push(token);
    }

    /// Whether a walk is under way: a question, or `poll_begin` and `poll_end` of everybody.
    pub(crate) fn is_walked(&self) -> bool {
        self.walked.get()
    }

    /// Has everybody asked who cannot be asked now, because a callback is running (rule A9).
    pub(crate) fn ask_busy_ones(&self) {
        let mut unasked = self.unasked.borrow_mut();
        for token in self.busy.borrow().iter() {
            if !unasked.contains(token) {
                unasked.push(*token);
            }
        }
    }

    /// Its last answer was no, or it is called for it now.
    #[inline]
    pub(crate) fn answered(&self, token: Token) {
        let mut unasked = self.unasked.borrow_mut();
        if !unasked.is_empty() {
            unasked.retain(|other| *other != token);
        }
    }

    /// Whether somebody has not been kicked for what it may have: in poll mode, or since.
    pub(crate) fn must_ask(&self) -> bool {
        self.mode.get() || !self.unasked.borrow().is_empty()
    }

    /// Whether somebody is to be asked, and can be.
    pub(crate) fn is_anybody_unasked(&self) -> bool {
        self.unasked.borrow().iter().any(|token| !self.is_busy(*token))
    }

    /// How many are to be asked.
    pub(crate) fn unasked(&self) -> usize {
        self.unasked.borrow().len()
    }

    /// One of the first `among` that are to be asked, and is not busy.
    pub(crate) fn next_unasked(&self, among: &mut usize) -> Option<Token> {
        let mut unasked = self.unasked.borrow_mut();
        *among = unasked.len().min(*among);
        let place = unasked[..*among]
            .iter()
            .rposition(|token| !self.is_busy(*token))?;
        *among -= 1;
        Some(unasked.remove(place))
    }

    /// Whether it has its `poll_begin`, or its last question, still to come.
    pub(crate) fn is_newcomer(&self, token: Token) -> bool {
        self.newcomers.borrow().contains(&token)
    }

    /// How many rounds there have been; wraps around.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.get()
    }

    /// Counts as much as so many rounds.
    pub(crate) fn add_rounds(&self, rounds: u32) {
        self.rounds.set(self.rounds.get().wrapping_add(rounds));
    }

    /// Notes an event of one of the handlers; in which round it was.
    pub(crate) fn note_event(&self) -> u32 {
        let now = self.rounds.get();
        self.last_event.set(now);
        now
    }

    /// How many rounds an event of `round` was before the last one of any handler.
    pub(crate) fn age(&self, round: u32) -> u32 {
        let age = self.last_event.get().wrapping_sub(round).cast_signed();
        u32::try_from(age).unwrap_or(0)
    }

    fn change(&self, token: Token, handler: Option<Rc<dyn Join>>) {
        let Some(mut set) = self.set.take() else {
            self.changes.borrow_mut().push((token, handler));
            self.dirty.set(true);
            return;
        };
        let former = set.remove(token);
        if let Some(handler) = handler {
            set.insert(token, handler);
        }
        self.set.set(Some(set));
        drop(former); // perhaps the last share: its drop may use the context
    }

    /// Asks every handler once, starting where a full list ended the last round; `hit` is told who said yes, and says whether to
    /// go on. Nested inside another walk it finds nothing.
    #[inline]
    pub(crate) fn round(&self, mut hit: impl FnMut(Token) -> ControlFlow<()>) {
        let Some(walk) = Walk::begin(self) else { return };
        self.rounds.set(self.rounds.get().wrapping_add(1));
        let start = self.start.take();
        let skips = !self.busy.borrow().is_empty();
        if let Some(set) = &walk.set
            && let ControlFlow::Break(place) = set.ask(self, start, skips, &mut hit)
        {
            self.start.set(place);
        }
    }

    /// Whether it is not to be asked now; `skips`: somebody is busy. Asked for only if somebody is, or the set has changed.
    #[cold]
    pub(crate) fn is_out(&self, token: Token, skips: bool) -> bool {
        self.is_changed(token) || (skips && self.is_busy(token))
    }

    /// Something has been changed in the course of this walk.
    #[inline]
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.get()
    }

    /// Calls `each` for every handler of the set, with nothing borrowed.
    pub(crate) fn walk(&self, mut each: impl FnMut(Token, &dyn Pollable)) {
        let Some(walk) = Walk::begin(self) else { return };
        let Some(set) = &walk.set else { return };
        set.walk(&mut |token, handler| {
            if !(self.dirty.get() && self.is_changed(token)) {
                each(token, handler);
            }
        });
    }

    /// Until the guard is dropped it is as in a walk: some have been told that the loop does not poll, and others not yet.
    pub(crate) fn as_walked(&self) -> Walked<'_> {
        Walked(&self.walked, self.walked.replace(true))
    }

    /// How many handlers there are; 0 while a walk is under way.
    pub(crate) fn len(&self) -> usize {
        let set = self.set.take();
        let len = set.as_ref().map_or(0, |set| set.len());
        self.set.set(set);
        len
    }

    fn is_changed(&self, token: Token) -> bool {
        self.changes.borrow().iter().any(|(changed, _)| *changed == token)
    }

    pub(crate) fn is_busy(&self, token: Token) -> bool {
        self.busy.borrow().contains(&token)
    }
}

/// Restores what was before, as a walk may be under way.
pub(crate) struct Walked<'a>(&'a Cell<bool>, bool);

impl Drop for Walked<'_> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

/// The set while a walk has it; brings it back and applies what was changed meanwhile, also on unwinding.
struct Walk<'a> {
    hot: &'a Hot,
    set: Option<Box<ByType>>,
}

impl<'a> Walk<'a> {
    /// `None` inside another walk.
    fn begin(hot: &'a Hot) -> Option<Self> {
        let set = hot.set.take()?;
        hot.walked.set(true);
        Some(Self { hot, set: Some(set) })
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.hot.set.set(self.set.take());
        self.hot.walked.set(false);
        if self.hot.dirty.get() {
            self.hot.apply_changes();
        }
    }
}

impl Hot {
    #[cold]
    fn apply_changes(&self) {
        while self.dirty.replace(false) {
            let mut changes = self.changes.take();
            for (token, handler) in changes.drain(..) {
                self.change(token, handler);
            }
            // Keep the memory for the next time.
            let mut kept = self.changes.borrow_mut();
            if kept.is_empty() {
                *kept = changes;
            }
        }
    }
}

/// Marks a handler as busy in a callback, until dropped.
pub(crate) struct Busy<'a>(&'a Hot);

impl<'a> Busy<'a> {
    pub(crate) fn new(hot: &'a Hot, token: Token) -> Self {
        hot.busy.borrow_mut().push(token);
        Self(hot)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.borrow_mut().pop();
    }
}
