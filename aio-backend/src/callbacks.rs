//! [`Callbacks`]: the callbacks of operations, which are called when the operations have ended.

use std::cell::{Cell, RefCell};
use std::fmt;

use crate::Token;

/// The callbacks of operations that a [`Backend`](crate::Backend) executes, by the ids that
/// [`submit`](crate::Backend::submit) has returned. `C` is a callback, or its identifier.
///
/// The table calls nothing, and drops no callback while it is borrowed: it returns each callback to the
/// caller. Therefore a callback may submit further operations while it runs, and while it is dropped.
///
/// # Examples
/// ```
/// use aio_backend::{Callbacks, Token};
///
/// let callbacks = Callbacks::new();
/// let (first, second) = (Token::new(0, 0), Token::new(1, 0)); // as a backend returned them
/// let kept = callbacks.insert(first, "first has ended");
/// let dropped = callbacks.insert(second, "second has ended");
/// assert_eq!(callbacks.abandon(dropped), Some("second has ended"));
/// // Both operations end, the second one cancelled: nothing is to be called for it.
/// assert_eq!(callbacks.end(second), None);
/// assert_eq!(callbacks.end(first), Some("first has ended"));
/// assert!(!callbacks.is_waiting(kept));
/// ```
pub struct Callbacks<C> {
    /// By the index of the operation.
    operations: RefCell<Vec<Option<Operation<C>>>>,
    /// The number of operations with a callback.
    waiting: Cell<usize>,
    /// The number of callbacks ever added.
    submitted: Cell<u64>,
}

/// An operation that has not ended.
struct Operation<C> {
    number: u64,
    /// `None` after it was abandoned.
    callback: Option<C>,
}

/// Identifies a callback of a [`Callbacks`], also after the callback was removed. It is never used again.
///
/// # Examples
/// ```
/// use aio_backend::{Callbacks, Token};
///
/// let (callbacks, operation) = (Callbacks::new(), Token::new(0, 0));
/// let first = callbacks.insert(operation, "first");
/// assert_eq!(first.operation(), operation);
/// callbacks.end(operation);
/// // The backend uses the id of the operation again.
/// let second = callbacks.insert(operation, "second");
/// assert!(first != second && !callbacks.is_waiting(first) && callbacks.is_waiting(second));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallbackId {
    operation: Token,
    /// Tells callbacks apart, because backends reuse ids.
    number: u64,
}

impl CallbackId {
    /// Returns the id of the operation, for [`Backend::cancel`](crate::Backend::cancel) while the callback
    /// [waits](Callbacks::is_waiting).
    #[must_use]
    pub fn operation(self) -> Token {
        self.operation
    }
}

impl<C> Callbacks<C> {
    /// Makes an empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            operations: RefCell::new(Vec::new()),
            waiting: Cell::new(0),
            submitted: Cell::new(0),
        }
    }

    /// Adds the callback of an operation that a backend has accepted.
    pub fn insert(&self, operation: Token, callback: C) -> CallbackId {
        let number = self.submitted.get();
        self.submitted.set(number + 1);
        self.waiting.set(self.waiting.get() + 1);
        let mut operations = self.operations.borrow_mut();
        let index = operation.index() as usize;
        if operations.len() <= index {
            operations.resize_with(index + 1, || None);
        }
        debug_assert!(
            operations[index].is_none(),
            "an operation has ended, and `end` was not called"
        );
        operations[index] = Some(Operation {
            number,
            callback: Some(callback),
        });
        CallbackId { operation, number }
    }

    /// Removes an operation that has ended. Returns its callback, unless it was abandoned.
    pub fn end(&self, operation: Token) -> Option<C> {
        let mut operations = self.operations.borrow_mut();
        let ended = operations.get_mut(operation.index() as usize)?.take()?;
        self.without(ended.callback)
    }

    /// Removes the callback of an operation that may go on, and returns it. Returns `None` if the operation
    /// has ended, or was abandoned.
    pub fn abandon(&self, id: CallbackId) -> Option<C> {
        let mut operations = self.operations.borrow_mut();
        let operation = operations.get_mut(id.operation.index() as usize)?.as_mut()?;
        let callback = operation.callback.take_if(|_| operation.number == id.number);
        self.without(callback)
    }

    /// Returns `true` until the operation has ended or was abandoned.
    #[must_use]
    pub fn is_waiting(&self, id: CallbackId) -> bool {
        let operations = self.operations.borrow();
        let operation = operations
            .get(id.operation.index() as usize)
            .and_then(Option::as_ref);
        operation.is_some_and(|operation| operation.number == id.number && operation.callback.is_some())
    }

    /// Returns the number of callbacks that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Returns the number of callbacks that were ever added.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.submitted.get()
    }

    fn without(&self, callback: Option<C>) -> Option<C> {
        let gone = usize::from(callback.is_some());
        self.waiting.set(self.waiting.get() - gone);
        callback
    }
}

impl<C> Default for Callbacks<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> fmt::Debug for Callbacks<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("waiting", &self.waiting)
            .field("submitted", &self.submitted)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn s1_a_callback_is_taken_once_by_the_end_or_by_who_abandons_it() {
        let callbacks = Callbacks::new();
        let ids: Vec<_> = (0..3)
            .map(|index| callbacks.insert(Token::new(index, 0), index))
            .collect();
        assert_eq!((callbacks.waiting(), callbacks.submitted()), (3, 3));
        assert_eq!(
            (callbacks.abandon(ids[1]), callbacks.abandon(ids[1])),
            (Some(1), None)
        );
        assert_eq!(
            (callbacks.end(Token::new(2, 0)), callbacks.end(Token::new(2, 0))),
            (Some(2), None)
        );
        assert_eq!(callbacks.abandon(ids[2]), None);
        let waiting = ids.iter().map(|id| callbacks.is_waiting(*id));
        assert_eq!(waiting.collect::<Vec<_>>(), [true, false, false]);
        // The operation that was abandoned ends, too.
        assert_eq!(callbacks.end(ids[1].operation()), None);
        assert_eq!((callbacks.waiting(), callbacks.end(Token::new(9, 0))), (1, None));
    }

    #[test]
    fn s1_an_id_that_is_used_again_is_another_callback() {
        let callbacks = Callbacks::new();
        let operation = Token::new(4, 7);
        let first = callbacks.insert(operation, "first");
        assert_eq!(callbacks.end(operation), Some("first"));
        let second = callbacks.insert(operation, "second");
        assert!(!callbacks.is_waiting(first) && callbacks.is_waiting(second));
        assert_eq!(callbacks.abandon(first), None);
        assert_eq!(callbacks.end(operation), Some("second"));
        assert_eq!((callbacks.waiting(), callbacks.submitted()), (0, 2));
    }

    /// A callback may submit and abandon while it is dropped.
    #[test]
    fn s1_a_callback_may_use_the_callbacks_while_it_is_dropped() {
        struct Again(Rc<Callbacks<Option<Again>>>);
        impl Drop for Again {
            fn drop(&mut self) {
                let id = self.0.insert(Token::new(0, 1), None);
                assert!(self.0.abandon(id).is_some());
                assert!(self.0.end(id.operation()).is_none());
            }
        }
        let callbacks = Rc::new(Callbacks::new());
        let id = callbacks.insert(Token::new(1, 0), Some(Again(callbacks.clone())));
        drop(callbacks.abandon(id));
        callbacks.end(id.operation());
        callbacks.insert(Token::new(1, 0), Some(Again(callbacks.clone())));
        drop(callbacks.end(Token::new(1, 0)));
        assert_eq!((callbacks.waiting(), callbacks.submitted()), (0, 4));
    }
}
