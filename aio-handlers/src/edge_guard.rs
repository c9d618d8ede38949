//! [`EdgeGuard`]: keeps an edge whose callback panics.

use std::fmt;
use std::mem;

use aio_backend::{Interest, Readiness, Token};

use crate::{Dispatcher, Recorded};

/// Restores an edge, unless it is [finished](Self::finish): if the callback panics, the backend does not
/// report the edge again. A one-shot event counts as delivered.
///
/// # Examples
/// ```
/// use std::cell::RefCell;
/// use std::panic::{AssertUnwindSafe, catch_unwind};
/// use aio_backend::{Interest, Readiness, ReadyList, Token};
/// use aio_handlers::{Dispatcher, EdgeGuard, GroupId, Registry};
///
/// struct Loop(RefCell<Registry<&'static str>>);
///
/// impl Dispatcher for Loop {
///     type Value = &'static str;
///     fn registry(&self) -> &RefCell<Registry<&'static str>> {
///         &self.0
///     }
///     fn mask(&self, token: Token) { /* backend.modify(token, Interest::NONE) */ }
///     fn take_back(&self, _list: Box<ReadyList>, _delivered: u64) {}
/// }
///
/// let main = Loop(RefCell::default());
/// let edge = Interest::READ | Interest::EDGE;
/// let token = main.0.borrow_mut().insert(Some(7), "a doorbell", edge, GroupId::DEFAULT)?;
/// let deliver = |callback: fn()| {
///     let guard = EdgeGuard::new(&main, token, edge, Readiness::IN);
///     callback();
///     if let Some(guard) = guard {
///         guard.finish();
///     }
/// };
/// deliver(|| ());
/// assert!(!main.0.borrow().has_edges());
/// assert!(catch_unwind(AssertUnwindSafe(|| deliver(|| panic!("on purpose")))).is_err());
/// assert!(main.0.borrow().has_edges()); // for the next iteration
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
#[must_use = "dropped, it restores the edge; finish it after the callback"]
pub struct EdgeGuard<'a, D: Dispatcher> {
    dispatcher: &'a D,
    token: Token,
    readiness: Readiness,
}

impl<'a, D: Dispatcher> EdgeGuard<'a, D> {
    /// Makes a guard for the delivery of `readiness` to a registration with this interest; `None` if it is
    /// not an edge.
    #[inline]
    pub fn new(dispatcher: &'a D, token: Token, interest: Interest, readiness: Readiness) -> Option<Self> {
        let (edge, once) = (Interest::EDGE, Interest::ONESHOT);
        let is_edge = interest & (edge | once) == edge;
        is_edge.then(|| Self {
            dispatcher,
            token,
            readiness,
        })
    }

    /// Ends the guard after the callback has returned. The edge is not restored.
    #[inline]
    pub fn finish(self) {
        mem::forget(self);
    }

    #[cold]
    fn restore(&self) {
        let mut registry = self.dispatcher.registry().borrow_mut();
        let restored = registry.restore(self.token, self.readiness);
        drop(registry);
        if restored == Recorded::Masked {
            self.dispatcher.mask(self.token);
        }
    }
}

impl<D: Dispatcher> Drop for EdgeGuard<'_, D> {
    #[inline]
    fn drop(&mut self) {
        self.restore();
    }
}

impl<D: Dispatcher> fmt::Debug for EdgeGuard<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeGuard")
            .field("token", &self.token)
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::GroupId;
    use crate::test_loop::Loop;

    const EDGE: Interest = Interest::READ.union(Interest::EDGE);

    /// Delivers an event of this interest to a callback that pauses its group, panics, or both. Returns
    /// whether the event is recorded again, and whether the handler was masked.
    fn call(interest: Interest, pauses: bool, panics: bool) -> (bool, bool) {
        let one = Loop::default();
        let inserted = one
            .registry
            .borrow_mut()
            .insert(Some(3), 0, interest, GroupId::DEFAULT);
        let token = inserted.expect("the registry is empty");
        let callback = || {
            let guard = EdgeGuard::new(&one, token, interest, Readiness::IN);
            if pauses {
                one.registry.borrow_mut().pause(GroupId::DEFAULT);
            }
            assert!(!panics, "on purpose");
            if let Some(guard) = guard {
                guard.finish();
            }
        };
        assert_eq!(catch_unwind(AssertUnwindSafe(callback)).is_err(), panics);
        one.registry.borrow().check();
        (
            one.registry.borrow().has_ready(token),
            one.masked.get() == Some(token),
        )
    }

    #[test]
    fn d9_an_edge_is_restored_if_its_callback_panics() {
        assert_eq!(call(EDGE, false, false), (false, false));
        assert_eq!(call(EDGE, false, true), (true, false));
        assert_eq!(
            call(EDGE, true, true),
            (false, true),
            "the resume has it reported"
        );
        for interest in [Interest::READ, EDGE.union(Interest::ONESHOT)] {
            assert_eq!(call(interest, false, true), (false, false), "{interest:?}");
        }
    }

    #[test]
    fn d9_an_edge_whose_callback_returns_while_another_panic_unwinds_is_not_restored() {
        struct Calls<'a>(&'a Cell<Option<(bool, bool)>>);
        impl Drop for Calls<'_> {
            fn drop(&mut self) {
                self.0.set(Some(call(EDGE, false, false)));
            }
        }
        let called = Cell::new(None);
        let unwinds = || {
            let _calls = Calls(&called);
            panic!("on purpose");
        };
        assert!(catch_unwind(AssertUnwindSafe(unwinds)).is_err());
        assert_eq!(called.get(), Some((false, false)));
    }
}
