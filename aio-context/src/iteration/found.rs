//! [`Found`]: what one iteration found.
//!
//! It calls no handler. The next iteration finds what this one gives back, because backends are level-triggered and the registry
//! stores edges.

use aio_backend::{Readiness, ReadyList, Token};

use crate::context::Inner;

/// What one iteration found; whatever is not dispatched when it ends, also by a panic, is found again by the next.
pub(crate) struct Found<'a> {
    inner: &'a Inner,
    pub(crate) list: &'a mut ReadyList,
    next: usize,
}

impl<'a> Found<'a> {
    #[inline]
    pub(crate) fn new(inner: &'a Inner, list: &'a mut ReadyList) -> Self {
        Self { inner, list, next: 0 }
    }

    /// The next one that has not been dispatched.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(Token, Readiness)> {
        let found = self.list.get(self.next)?;
        self.next += 1;
        Some(found)
    }

    /// Gives back what has not been dispatched.
    #[cold]
    fn forget(&mut self) {
        let mut registry = self.inner.descriptors.registry.borrow_mut();
        let left = &*self.list;
        registry.give_back(left.iter_from(self.next).map(|(token, _)| token));
        drop(registry);
        for (token, _) in left.iter_from(self.next) {
            self.inner.polling.set.forget_hit(token);
        }
        self.next = self.list.len();
    }
}

impl Drop for Found<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.next < self.list.len() {
            self.forget();
        }
    }
}
