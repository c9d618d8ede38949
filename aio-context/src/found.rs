//! [`Found`]: what one iteration found, and the lists that are used for it again and again.
//!
//! It calls nobody. What it gives back is found anew by the next iteration, because backends are level-triggered (and edges are
//! remembered elsewhere).

use std::cell::{Cell, RefCell};

use aio_backend::{Readiness, ReadyList, Token};

use crate::context::Inner;

/// Lists of iterations that are over, for those to come: as many as were ever nested. One that a panic has passed is not
/// given back.
#[derive(Default)]
pub(crate) struct Lists {
    one: Cell<Option<Box<ReadyList>>>,
    #[allow(
        clippy::vec_box,
        reason = "lists are moved in and out of their boxes otherwise"
    )]
    more: RefCell<Vec<Box<ReadyList>>>,
}

impl Lists {
    /// An empty list, for up to `limit` events.
    #[inline]
    pub(crate) fn take(&self, limit: usize) -> Box<ReadyList> {
        match self.one.take() {
            Some(list) => list,
            None => self.another(limit),
        }
    }

    #[cold]
    fn another(&self, limit: usize) -> Box<ReadyList> {
        let spare = self.more.borrow_mut().pop();
        spare.unwrap_or_else(|| Box::new(ReadyList::with_limit(limit)))
    }

    /// Takes a list back.
    #[inline]
    pub(crate) fn give_back(&self, mut list: Box<ReadyList>) {
        list.clear();
        if let Some(other) = self.one.replace(Some(list)) {
            self.keep(other);
        }
    }

    #[cold]
    fn keep(&self, list: Box<ReadyList>) {
        self.more.borrow_mut().push(list);
    }
}

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
        let mut registry = self.inner.registry.borrow_mut();
        let left = &*self.list;
        registry.give_back(left.iter().skip(self.next).map(|(token, _)| token));
        drop(registry);
        for (token, _) in left.iter().skip(self.next) {
            self.inner.polled.forget_hit(token);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_used_again_and_again_and_are_empty_then() {
        let lists = Lists::default();
        let where_are =
            |lists: &[Box<ReadyList>]| lists.iter().map(|list| &raw const **list).collect::<Vec<_>>();
        let mut first: Vec<_> = (0..3).map(|_| lists.take(2)).collect();
        for number in 0..3 {
            first[0].push(Token::new(number, 0), Readiness::IN);
        }
        assert!(first[0].is_full() && first[0].len() == 2, "the limit is kept");
        let mut before = where_are(&first);
        first.into_iter().for_each(|list| lists.give_back(list));
        let second: Vec<_> = (0..3).map(|_| lists.take(2)).collect();
        let mut after = where_are(&second);
        before.sort_unstable();
        after.sort_unstable();
        assert_eq!(before, after);
        assert!(second.iter().all(|list| list.is_empty()));
    }
}
