//! [`Hit`]: a source that has work, and was not passed on yet.

use std::fmt;
use std::mem;
use std::ops::ControlFlow;

use aio_backend::Token;

use crate::PollSet;
use crate::slots::Marked;

/// A source that has work. Dropping the hit refuses it: the source is polled again in the next round.
#[must_use = "a hit that is dropped is refused"]
pub struct Hit<'a> {
    set: &'a PollSet,
    slot: u32,
    marked: Marked,
}

impl<'a> Hit<'a> {
    /// Marks a source whose `poll` has returned `true`; `None` if it was removed, suspended or replaced meanwhile.
    #[inline]
    pub(crate) fn mark(set: &'a PollSet, slot: u32) -> Option<Self> {
        let state = set.state();
        let marked = state.slots.borrow_mut().mark_hit(slot, state.rounds.get())?;
        Some(Self::new(set, slot, marked))
    }

    #[inline(always)]
    pub(crate) fn new(set: &'a PollSet, slot: u32, marked: Marked) -> Self {
        Self { set, slot, marked }
    }

    /// Returns the source's token.
    #[inline]
    #[must_use]
    pub fn token(&self) -> Token {
        self.marked.token
    }

    /// Takes the hit: the caller must [serve](PollSet::serve) or [forget](PollSet::forget_hit) it.
    #[inline]
    #[must_use = "the hit has to be served"]
    pub fn into_token(self) -> Token {
        let (state, token) = (self.set.state(), self.token());
        state.last_event.set(state.rounds.get());
        mem::forget(self);
        token
    }

    /// Takes the hit, and serves it as [`PollSet::serve`] does.
    #[inline(always)]
    pub fn serve<R>(self, run: impl FnOnce() -> R) -> Option<R> {
        let (set, slot) = (self.set, self.slot);
        set.serve_slot(slot, self.into_token(), run)
    }

    /// Rebuilds the hit from copies of its fields: so a value that a function returned in memory is moved to
    /// registers.
    #[inline(always)]
    pub(crate) fn moved(self) -> Self {
        let (set, slot, marked) = (self.set, self.slot, self.marked);
        mem::forget(self);
        Self { set, slot, marked }
    }

    /// Takes the hit apart into its slot and its mark, which stays: for [`new`](Self::new).
    pub(crate) fn into_mark(self) -> (u32, Marked) {
        let mark = (self.slot, self.marked);
        mem::forget(self);
        mark
    }

    /// Passes the hit to `hit`. If `hit` refuses it, breaks with the slot.
    #[inline(always)]
    pub(crate) fn pass(self, hit: &mut impl FnMut(Token) -> ControlFlow<()>) -> ControlFlow<u32> {
        if hit(self.token()).is_break() {
            return ControlFlow::Break(self.slot);
        }
        let _taken = self.into_token();
        ControlFlow::Continue(())
    }
}

impl Drop for Hit<'_> {
    #[inline]
    fn drop(&mut self) {
        refuse(self.set, self.slot, self.marked);
    }
}

#[cold]
#[inline(never)]
fn refuse(set: &PollSet, slot: u32, marked: Marked) {
    set.state().slots.borrow_mut().unmark_hit(slot, &marked);
}

impl fmt::Debug for Hit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hit").field(&self.token()).finish()
    }
}
