//! [`Running`]: handlers that may not be entered twice, and the calls that wait until they return.

use std::cell::RefCell;

use crate::call_each;

type Call = Box<dyn FnOnce()>;

/// The address of a handler, and the calls that wait for it.
type Entry = (*const (), Vec<Call>);

thread_local! {
    static RUNNING: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Runs `use_it`, unless the thread is ending.
fn with_running<R: Default>(use_it: impl FnOnce(&mut Vec<Entry>) -> R) -> R {
    RUNNING
        .try_with(|running| use_it(&mut running.borrow_mut()))
        .unwrap_or_default()
}

fn address<H: ?Sized>(handler: &H) -> *const () {
    std::ptr::from_ref(handler).cast()
}

/// A handler that runs on this thread. It cannot be entered again until this is dropped.
///
/// The exclusion belongs to the handler, which is identified by its address, and not to a registration: a
/// handler may be registered elsewhere while it runs, and have several registrations, in several registries.
/// Use [`Registry::exclude`](crate::Registry::exclude) to delay the events of such a registration.
///
/// # Examples
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use aio_handlers::Running;
///
/// let (handler, served) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
/// let running = Running::enter(&*handler).expect("it does not run");
/// assert!(Running::is_running(&*handler) && Running::enter(&*handler).is_none());
/// // An event comes meanwhile.
/// let later = served.clone();
/// Running::after(&*handler, move || later.set(true));
/// assert!(!served.get());
/// drop(running);
/// assert!(served.get() && !Running::is_running(&*handler));
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, the handler counts as returned"]
pub struct Running {
    handler: *const (),
}

impl Running {
    /// Enters a handler. Returns `None` if it is running already.
    pub fn enter<H: ?Sized>(handler: &H) -> Option<Self> {
        if Self::is_running(handler) {
            return None;
        }
        let handler = address(handler);
        with_running(|running| running.push((handler, Vec::new())));
        Some(Self { handler })
    }

    /// Returns whether a handler is running on this thread.
    #[must_use]
    pub fn is_running<H: ?Sized>(handler: &H) -> bool {
        let handler = address(handler);
        with_running(|running| running.iter().any(|(one, _)| *one == handler))
    }

    /// Makes a `call` when a handler has returned, or at once if it is not running. The calls for one handler
    /// are made in the order in which they were passed, also after one of them has panicked.
    pub fn after<H: ?Sized>(handler: &H, call: impl FnOnce() + 'static) {
        let handler = address(handler);
        let mut call = Some(call);
        with_running(|running| {
            if let Some((_, waiting)) = running.iter_mut().find(|(one, _)| *one == handler) {
                waiting.extend(call.take().map(|call| Box::new(call) as Call));
            }
        });
        if let Some(call) = call {
            call();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let waiting = with_running(|running| {
            let place = running.iter().rposition(|(one, _)| *one == self.handler)?;
            Some(running.remove(place).1)
        });
        call_each(waiting.into_iter().flatten(), |call| call());
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use super::*;

    #[test]
    fn r3_each_handler_is_entered_once_and_what_waits_for_it_is_called_when_it_returns() {
        let (first, second) = (Rc::new(1), Rc::new(2));
        let calls = Rc::new(RefCell::new(Vec::new()));
        let after = |handler: &Rc<i32>, name| {
            let calls = calls.clone();
            Running::after(&**handler, move || calls.borrow_mut().push(name));
        };
        after(&first, "at once");
        let outer = Running::enter(&*first).unwrap();
        let inner = Running::enter(&*second).unwrap();
        assert!(Running::enter(&*first).is_none() && Running::enter(&*second).is_none());
        after(&first, "of the first");
        after(&second, "of the second");
        after(&second, "again");
        assert_eq!(*calls.borrow(), ["at once"]);
        drop(inner);
        assert_eq!(*calls.borrow(), ["at once", "of the second", "again"]);
        assert!(!Running::is_running(&*second) && Running::is_running(&*first));
        drop(outer);
        assert_eq!(calls.borrow().last(), Some(&"of the first"));
        assert!(Running::enter(&*first).is_some() && !Running::is_running(&*first));
    }

    #[test]
    fn d9_a_panic_in_what_waits_keeps_none_of_the_rest_from_being_called() {
        let (handler, called) = (Rc::new(()), Rc::new(RefCell::new(0)));
        let running = Running::enter(&*handler).unwrap();
        for fails in [true, false] {
            let called = called.clone();
            Running::after(&*handler, move || {
                assert!(!fails, "on purpose");
                *called.borrow_mut() += 1;
            });
        }
        // A call may enter the handler, and further calls may wait for it again.
        let (again, seen) = (handler.clone(), called.clone());
        Running::after(&*handler, move || {
            let entered = Running::enter(&*again).unwrap();
            Running::after(&*again, move || *seen.borrow_mut() += 10);
            drop(entered);
        });
        assert!(catch_unwind(AssertUnwindSafe(|| drop(running))).is_err());
        assert_eq!(*called.borrow(), 11);
        assert!(!Running::is_running(&*handler));
    }

    #[test]
    fn r3_handlers_that_return_in_another_order_are_told_apart() {
        let (first, second) = (Rc::new(1), Rc::new(2));
        let entered = (
            Running::enter(&*first).unwrap(),
            Running::enter(&*second).unwrap(),
        );
        drop(entered.0);
        assert!(!Running::is_running(&*first) && Running::is_running(&*second));
        drop(entered.1);
        assert!(!Running::is_running(&*second));
    }
}
