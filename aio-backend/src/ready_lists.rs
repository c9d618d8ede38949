//! [`ReadyLists`]: ready lists for reuse.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;

use crate::ReadyList;

/// The ready lists of past iterations, for reuse: as many as the deepest nesting of iterations. If a panic
/// unwinds through an iteration, its list is not returned.
///
/// ```
/// use aio_backend::ReadyLists;
///
/// let lists = ReadyLists::new(1024);
/// let list = lists.take();
/// assert!(list.is_empty() && list.limit() == 1024);
/// lists.give_back(list);
/// ```
pub struct ReadyLists {
    /// The limit of events of each list.
    limit: usize,
    one: Cell<Option<Box<ReadyList>>>,
    #[allow(
        clippy::vec_box,
        reason = "lists are moved in and out of their boxes otherwise"
    )]
    more: RefCell<Vec<Box<ReadyList>>>,
}

impl ReadyLists {
    /// Makes a pool without lists. Each list will have this `limit` of events.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            one: Cell::new(None),
            more: RefCell::default(),
        }
    }

    /// Returns an empty list.
    #[inline]
    #[must_use]
    pub fn take(&self) -> Box<ReadyList> {
        match self.one.take() {
            Some(list) => list,
            None => self.another(),
        }
    }

    #[cold]
    fn another(&self) -> Box<ReadyList> {
        let spare = self.more.borrow_mut().pop();
        spare.unwrap_or_else(|| Box::new(ReadyList::with_limit(self.limit)))
    }

    /// Takes a list back, for another iteration.
    #[inline]
    pub fn give_back(&self, mut list: Box<ReadyList>) {
        list.clear();
        if let Some(other) = self.one.replace(Some(list)) {
            self.keep(other);
        }
    }

    /// Takes back an empty list. No list may have been given back since it was taken, as in an iteration
    /// without events.
    #[inline]
    pub fn give_back_unused(&self, list: Box<ReadyList>) {
        debug_assert!(list.is_empty() && !list.has_invalid(), "the list was used");
        let none = self.one.replace(Some(list));
        debug_assert!(none.is_none(), "another list was given back since");
        // Callers then need no code to drop the list.
        mem::forget(none);
    }

    #[cold]
    fn keep(&self, list: Box<ReadyList>) {
        self.more.borrow_mut().push(list);
    }
}

impl fmt::Debug for ReadyLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyLists")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Readiness, Token};

    #[test]
    fn lists_are_used_again_and_again_and_are_empty_then() {
        let lists = ReadyLists::new(2);
        let where_are =
            |lists: &[Box<ReadyList>]| lists.iter().map(|list| &raw const **list).collect::<Vec<_>>();
        let mut first: Vec<_> = (0..3).map(|_| lists.take()).collect();
        for number in 0..3 {
            first[0].push(Token::new(number, 0), Readiness::IN);
        }
        assert!(first[0].is_full() && first[0].len() == 2, "the limit is kept");
        let mut before = where_are(&first);
        first.into_iter().for_each(|list| lists.give_back(list));
        let second: Vec<_> = (0..3).map(|_| lists.take()).collect();
        let mut after = where_are(&second);
        before.sort_unstable();
        after.sort_unstable();
        assert_eq!(before, after);
        assert!(second.iter().all(|list| list.is_empty()));
    }
}
