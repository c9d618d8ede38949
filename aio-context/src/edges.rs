//! Edges: what a backend reports once has to be remembered here until its handler is called.
//!
//! Level-triggered readiness may be dropped at any time, because the next wait reports it anew: an iteration that ends with a
//! panic, a nested poll, a pause rely on that. For a registration with [`Interest::EDGE`] nobody would report it anew. So its
//! token stays here from the report until the readiness in its slot has been taken, and each iteration, nested ones
//! included, begins with what is here. Nothing here is called or waited for.

use std::cell::{Cell, RefCell};

use aio_backend::{Interest, Readiness, ReadyList, Token};
use aio_handlers::Noted;

use crate::context::Inner;

/// The tokens whose edges have been reported and perhaps not been taken.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    /// There is, or was, a registration that asks for edges.
    wanted: Cell<bool>,
    reported: RefCell<Vec<Token>>,
}

impl Edges {
    /// Notes what a registration asks for.
    pub(crate) fn want(&self, interest: Interest) {
        if interest.contains(Interest::EDGE) {
            self.wanted.set(true);
        }
    }

    /// Whether there is, or was, a registration that asks for edges.
    #[inline]
    pub(crate) fn are_wanted(&self) -> bool {
        self.wanted.get()
    }

    /// Whether any edge is waiting to be taken.
    #[inline]
    pub(crate) fn are_waiting(&self) -> bool {
        self.wanted.get() && !self.reported.borrow().is_empty()
    }
}

impl Inner {
    /// Notes readiness in its slot, and remembers the token if nobody would report it anew.
    #[inline]
    pub(crate) fn note(&self, token: Token, readiness: Readiness) -> Noted {
        if self.edges.wanted.get() {
            return self.note_edge(token, readiness);
        }
        self.registry.borrow_mut().note(token, readiness)
    }

    fn note_edge(&self, token: Token, readiness: Readiness) -> Noted {
        let mut registry = self.registry.borrow_mut();
        let is_known = registry.has_ready(token);
        let noted = registry.note(token, readiness);
        drop(registry);
        if noted == Noted::Live && !is_known && self.asks_for_edges(token) {
            self.edges.reported.borrow_mut().push(token);
        }
        noted
    }

    /// Puts edges on the list that were reported and not taken; those that were taken are forgotten.
    #[inline]
    pub(crate) fn recall_edges(&self, ready: &mut ReadyList) {
        if self.edges.are_waiting() {
            self.recall_those_not_taken(ready);
        }
    }

    #[inline(never)]
    fn recall_those_not_taken(&self, ready: &mut ReadyList) {
        let registry = self.registry.borrow();
        let mut reported = self.edges.reported.borrow_mut();
        reported.retain(|token| {
            let waits = registry.has_ready(*token);
            if waits {
                // What finds no room stays for the next iteration.
                ready.push(*token, Readiness::IN);
            }
            waits
        });
    }

    /// Whether an event of this registration is reported only once.
    pub(crate) fn asks_for_edges(&self, token: Token) -> bool {
        let interest = self.registry.borrow().interest(token);
        interest.is_some_and(|interest| interest.contains(Interest::EDGE))
    }

    /// An event could not be delivered, because its handler was paused or is held: if it will not be reported anew by
    /// itself, the handler is parked, so that whoever ends the pause has it reported.
    #[cold]
    pub(crate) fn turned_away(&self, token: Token) {
        if self.edges.wanted.get() && self.asks_for_edges(token) {
            let noted = self.registry.borrow_mut().note(token, Readiness::empty());
            if noted == Noted::Parked {
                self.park(token);
            }
        }
    }

    /// Keeps an edge from being lost in a callback that panics.
    #[inline]
    pub(crate) fn insure_edge(
        &self,
        token: Token,
        readiness: Readiness,
        interest: Interest,
    ) -> Option<Insured<'_>> {
        interest.contains(Interest::EDGE).then(|| Insured {
            inner: self,
            token,
            readiness,
        })
    }
}

/// Notes readiness again, and remembers it, if a callback panics.
pub(crate) struct Insured<'a> {
    inner: &'a Inner,
    token: Token,
    readiness: Readiness,
}

impl Drop for Insured<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let noted = self.inner.note(self.token, self.readiness);
            if noted == Noted::Parked {
                self.inner.park(self.token);
            }
        }
    }
}
