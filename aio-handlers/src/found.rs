//! [`Found`]: the events that one iteration found. [`Delivering`]: their delivery. A panic loses none of the
//! events.
//!
//! The next iteration finds the events that they give back, because backends are level-triggered and the
//! registry stores edges.

use std::cell::RefCell;
use std::fmt;
use std::mem;

use aio_backend::{ReadyList, Token};

use crate::Registry;

/// A loop that delivers the events of a [`Registry`] while its callbacks may use the registry. [`Found`], [`Delivering`] and
/// [`EdgeGuard`](crate::EdgeGuard) call it.
///
/// # Examples
/// ```
/// use std::cell::RefCell;
/// use aio_backend::{Interest, ReadyList, Token};
/// use aio_handlers::{Dispatcher, Registry};
///
/// struct Loop {
///     registry: RefCell<Registry<&'static str>>,
///     interests: RefCell<Vec<(Token, Interest)>>,
///     undelivered: RefCell<Vec<Token>>,
/// }
///
/// impl Dispatcher for Loop {
///     type Value = &'static str;
///
///     fn registry(&self) -> &RefCell<Registry<&'static str>> {
///         &self.registry
///     }
///
///     fn mask(&self, token: Token) {
///         // Here, a list of changes that the next wait makes.
///         self.interests.borrow_mut().push((token, Interest::NONE));
///     }
///
///     fn take_back(&self, list: Box<ReadyList>, _delivered: u64) {
///         // A level-triggered backend reports them again. This loop counts them.
///         self.undelivered.borrow_mut().extend(list.rest().map(|(token, _)| token));
///     }
/// }
/// ```
pub trait Dispatcher {
    /// The values of the registry.
    type Value;

    /// Returns the registry. It may not be borrowed when a guard is dropped, which borrows it: if another
    /// panic is unwinding, a panic there would abort the process.
    fn registry(&self) -> &RefCell<Registry<Self::Value>>;

    /// Makes the backend silent about a registration: sets [`Interest::NONE`](aio_backend::Interest::NONE)
    /// there, as for [`Recorded::Masked`](crate::Recorded::Masked).
    fn mask(&self, token: Token);

    /// Takes back a list whose delivery ended early, after `delivered` of its events. Its
    /// [rest](ReadyList::rest) was not delivered; the registry no longer needs it.
    fn take_back(&self, list: Box<ReadyList>, delivered: u64);
}

/// The events that one iteration found. On drop, also by a panic, the next iteration finds all undelivered
/// ones again.
///
/// # Examples
/// ```
/// use std::cell::{Cell, RefCell};
/// use aio_backend::{Interest, Readiness, ReadyList, Token};
/// use aio_handlers::{Dispatcher, Found, GroupId, Registry};
///
/// #[derive(Default)]
/// struct Loop {
///     registry: RefCell<Registry<&'static str>>,
///     undelivered: Cell<usize>,
/// }
///
/// impl Dispatcher for Loop {
///     type Value = &'static str;
///     fn registry(&self) -> &RefCell<Registry<&'static str>> {
///         &self.registry
///     }
///     fn mask(&self, _token: Token) {}
///     fn take_back(&self, list: Box<ReadyList>, _delivered: u64) {
///         self.undelivered.set(list.rest().len());
///     }
/// }
///
/// let main = Loop::default();
/// for (number, name) in [(3, "a socket"), (4, "a pipe")] {
///     main.registry.borrow_mut().insert(Some(number), name, Interest::READ, GroupId::DEFAULT).unwrap();
/// }
/// let iterate = || {
///     let mut found = Found::new(&main, Box::default());
///     for token in main.registry.borrow().tokens() {
///         found.list().push(token, Readiness::IN);
///     }
///     found.is_recorded = false;
///     if main.undelivered.get() == 0 {
///         panic!("on purpose"); // the events are not lost
///     }
///     found.into_list().len()
/// };
/// let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(iterate));
/// assert!(panicked.is_err());
/// assert_eq!(main.undelivered.get(), 2);
/// assert_eq!(iterate(), 2);
/// ```
pub struct Found<'a, D: Dispatcher> {
    dispatcher: &'a D,
    /// `Some` until the list is moved out.
    list: Option<Box<ReadyList>>,
    /// Set if the events are in the slots of the registry, too: see [`Registry::start_delivery`].
    pub is_recorded: bool,
}

impl<'a, D: Dispatcher> Found<'a, D> {
    /// Takes a list that is empty, or whose events were recorded.
    #[inline]
    pub fn new(dispatcher: &'a D, list: Box<ReadyList>) -> Self {
        Self {
            dispatcher,
            list: Some(list),
            is_recorded: true,
        }
    }

    /// Returns the list, to add events.
    #[inline(always)]
    pub fn list(&mut self) -> &mut ReadyList {
        self.list.get_or_insert_default()
    }

    /// Returns the list alone: the caller delivers it.
    #[inline(always)]
    #[must_use]
    pub fn into_list(mut self) -> Box<ReadyList> {
        let list = self.list.take().unwrap_or_default();
        mem::forget(self);
        list
    }
}

impl<D: Dispatcher> Drop for Found<'_, D> {
    #[inline]
    fn drop(&mut self) {
        if let Some(list) = self.list.take() {
            give_back(self.dispatcher, list, self.is_recorded);
        }
    }
}

/// Gives back the events of a list that is not delivered.
#[cold]
fn give_back<D: Dispatcher>(dispatcher: &D, list: Box<ReadyList>, is_recorded: bool) {
    if list.is_empty() {
        return dispatcher.take_back(list, 0);
    }
    let mut registry = dispatcher.registry().borrow_mut();
    let outer = registry.start_delivery(list, is_recorded);
    drop(registry);
    drop(Delivering::new(dispatcher, outer));
}

/// A delivery under way. If a callback panics, the remaining events are given back: see [`Found`].
///
/// # Examples
/// ```
/// use std::cell::RefCell;
/// use aio_backend::{Interest, Readiness, ReadyList, Token};
/// use aio_handlers::{Delivering, Dispatcher, GroupId, Registry};
///
/// struct Loop(RefCell<Registry<&'static str>>);
///
/// impl Dispatcher for Loop {
///     type Value = &'static str;
///     fn registry(&self) -> &RefCell<Registry<&'static str>> {
///         &self.0
///     }
///     fn mask(&self, _token: Token) {}
///     fn take_back(&self, list: Box<ReadyList>, delivered: u64) {
///         println!("{delivered} of {} events", list.len());
///     }
/// }
///
/// let main = Loop(RefCell::default());
/// let mut registry = main.0.borrow_mut();
/// let token = registry.insert(Some(7), "a socket", Interest::READ, GroupId::DEFAULT)?;
/// let mut list = Box::new(ReadyList::new());
/// list.push(token, Readiness::IN);
/// let mut delivering = Delivering::new(&main, registry.start_delivery(list, false));
/// while let Some((_token, _readiness, due)) = registry.next_event() {
///     let socket = due.map(|due| *due.value);
///     drop(registry);
///     match socket {
///         Some(socket) => println!("{socket}"), // ... call it: it may use the registry, or panic.
///         None => delivering.missed += 1,
///     }
///     registry = main.0.borrow_mut();
/// }
/// assert_eq!(delivering.missed, 0);
/// let list = registry.end_delivery(delivering.finish());
/// # assert_eq!(list.len(), 1);
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
pub struct Delivering<'a, D: Dispatcher> {
    dispatcher: &'a D,
    outer: Option<Box<ReadyList>>,
    /// The number of events of the list for which no callback was called.
    pub missed: usize,
}

impl<'a, D: Dispatcher> Delivering<'a, D> {
    /// Takes a delivery that [was started](Registry::start_delivery). `outer` is the list of the outer
    /// iteration.
    #[inline(always)]
    pub fn new(dispatcher: &'a D, outer: Option<Box<ReadyList>>) -> Self {
        Self {
            dispatcher,
            outer,
            missed: 0,
        }
    }

    /// Returns the outer list, for [`end_delivery`](Registry::end_delivery), after all events were delivered.
    #[inline(always)]
    pub fn finish(mut self) -> Option<Box<ReadyList>> {
        let outer = self.outer.take();
        mem::forget(self);
        outer
    }
}

impl<D: Dispatcher> Drop for Delivering<'_, D> {
    #[inline(always)]
    fn drop(&mut self) {
        abandon(self.dispatcher, self.outer.take(), self.missed);
    }
}

/// Gives back the events that were not delivered. Of those that were taken, the callback of the latest has
/// panicked, and `missed` had no callback.
#[cold]
fn abandon<D: Dispatcher>(dispatcher: &D, outer: Option<Box<ReadyList>>, missed: usize) {
    let list = dispatcher.registry().borrow_mut().end_delivery(outer);
    let taken = list.len() - list.rest().len();
    dispatcher.take_back(list, taken.saturating_sub(missed + 1) as u64);
}

impl<D: Dispatcher> fmt::Debug for Found<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found")
            .field("list", &self.list)
            .field("is_recorded", &self.is_recorded)
            .finish_non_exhaustive()
    }
}

impl<D: Dispatcher> fmt::Debug for Delivering<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivering")
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use aio_backend::{Interest, Readiness};

    use super::*;
    use crate::GroupId;
    use crate::test_loop::Loop;

    const EDGE: Interest = Interest::READ.union(Interest::EDGE);

    impl Loop {
        /// Registers handlers 0 to 2. Handlers 1 and 2 wait for edges.
        fn new() -> (Self, Vec<Token>) {
            let one = Self::default();
            let mut registry = one.registry.borrow_mut();
            let insert = |(value, interest)| {
                let inserted = registry.insert(Some(value as i32), value, interest, GroupId::DEFAULT);
                inserted.expect("each has a number of its own")
            };
            let tokens = [(0, Interest::READ), (1, EDGE), (2, EDGE)].map(insert);
            drop(registry);
            (one, tokens.to_vec())
        }

        fn found(&self, tokens: &[Token]) -> Found<'_, Self> {
            let mut found = Found::new(self, Box::default());
            for token in tokens {
                found.list().push(*token, Readiness::IN);
            }
            found.is_recorded = false;
            found
        }

        /// Delivers the events; the handler `panics_at` panics. Returns the handlers that were called.
        fn deliver(&self, found: Found<'_, Self>, panics_at: Option<u32>) -> Vec<u32> {
            let (is_recorded, mut called) = (found.is_recorded, Vec::new());
            let mut registry = self.registry.borrow_mut();
            let outer = registry.start_delivery(found.into_list(), is_recorded);
            let mut delivering = Delivering::new(self, outer);
            while let Some((token, readiness, _)) = registry.next_event() {
                let resolved = registry.resolve(token, readiness);
                let crate::Event::Ready(due) = resolved else {
                    delivering.missed += 1;
                    continue;
                };
                let value = *due.value;
                drop(registry);
                called.push(value);
                assert_ne!(Some(value), panics_at, "on purpose");
                registry = self.registry.borrow_mut();
            }
            registry.end_delivery(delivering.finish());
            called
        }

        fn recalled(&self) -> Vec<Token> {
            let mut ready = ReadyList::new();
            self.registry.borrow_mut().recall(&mut ready);
            ready.iter().map(|(token, _)| token).collect()
        }
    }

    #[test]
    fn d9_what_is_found_and_not_delivered_is_found_again() {
        let (one, tokens) = Loop::new();
        drop(one.found(&tokens));
        assert_eq!(*one.taken_back.borrow(), [(0, 3)]);
        assert_eq!(one.recalled(), tokens[1..], "the backend reports the level again");
        drop(one.found(&[]));
        assert_eq!(
            one.taken_back.borrow().last(),
            Some(&(0, 0)),
            "for another iteration"
        );
        let mut recorded = Found::new(&one, Box::default());
        for token in &tokens {
            one.registry.borrow_mut().record(*token, Readiness::IN);
            recorded.list().push(*token, Readiness::IN);
        }
        drop(recorded);
        assert!(!one.registry.borrow().has_ready(tokens[0]) && one.registry.borrow().has_ready(tokens[1]));
        one.registry.borrow().check();
    }

    #[test]
    fn d9_a_panic_gives_the_rest_back_and_the_outer_delivery_goes_on() {
        let (one, tokens) = Loop::new();
        let outer = Box::new(ReadyList::new());
        assert!(one.registry.borrow_mut().start_delivery(outer, true).is_none());
        let found = one.found(&tokens);
        assert!(catch_unwind(AssertUnwindSafe(|| one.deliver(found, Some(1)))).is_err());
        assert_eq!(*one.taken_back.borrow(), [(1, 1)]);
        assert_eq!(one.recalled(), tokens[2..]);
        assert_eq!(one.deliver(one.found(&tokens[..2]), None), [0, 1]);
        assert_eq!(one.taken_back.borrow().len(), 1, "all were delivered");
        let outer = one.registry.borrow_mut().end_delivery(None);
        assert!(outer.is_empty());
        one.registry.borrow().check();
    }
}
