//! [`LoopBackend`]: the backend of a loop, behind a shared reference, and the loop's state about it.

use std::cell::{BorrowError, Cell, Ref, RefCell, RefMut};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::{
    AnyBackend, Backend, Completed, Interest, NotSubmitted, Operation, Peek, ReadyList, Refused, Token,
    Watched,
};

/// The number of waits after which the backend may restructure itself. It also may after a registration.
const REBALANCE_EVERY: u32 = 128;

/// A backend in a loop whose callbacks may change registrations. No function holds a borrow after it returns,
/// except those that return one.
///
/// It records whether the backend can [peek](Backend::peek), calls [`rebalance`](Backend::rebalance) when
/// that is due, and explains the backend's errors. The functions that may make a system call are compiled
/// into their callers, as with [`AnyBackend`].
///
/// ```
/// use aio_backend::{AnyBackend, Interest, LoopBackend, ReadyList, Token};
/// use std::{rc::Rc, time::Duration};
/// # use aio_backend::{Backend, Watched};
/// # #[derive(Debug)] struct Usual;
/// # impl Backend for Usual {
/// #     fn name(&self) -> &'static str { "usual" }
/// #     fn add(&mut self, _: Watched, _: Token, _: Interest) -> std::io::Result<()> { Ok(()) }
/// #     fn modify(&mut self, _: Token, _: Interest) -> std::io::Result<()> { Ok(()) }
/// #     fn remove(&mut self, _: Token) -> std::io::Result<()> { Ok(()) }
/// #     fn wait(&mut self, _: Option<Duration>, ready: &mut ReadyList) -> std::io::Result<()> {
/// #         ready.push(Token::new(0, 0), aio_backend::Readiness::IN);
/// #         Ok(())
/// #     }
/// #     fn watched(&self) -> usize { 0 }
/// #     fn visit(&self, _: &mut dyn FnMut(&Watched, Token, Interest)) {}
/// #     fn drain(&mut self, _: &mut dyn FnMut(Watched, Token, Interest)) {}
/// # }
///
/// # fn main() -> std::io::Result<()> {
/// let backend = LoopBackend::new(AnyBackend::Usual(Box::new(Usual)));
/// let (reader, _writer) = std::io::pipe()?;
/// backend.add(Token::new(0, 0), Rc::new(reader).into(), Interest::READ)?;
/// let (mut ready, is_outermost) = (ReadyList::with_limit(8), true);
/// backend.rebalance(is_outermost);
/// backend.wait(Some(Duration::ZERO), &mut ready)?;
/// for (token, _readiness) in ready.iter() {
///     backend.remove(token)?; // as a callback may
/// }
/// # Ok(()) }
/// ```
pub struct LoopBackend<B> {
    backend: RefCell<AnyBackend<B>>,
    /// The number of waits until the next rebalance. If that wait is not outermost, the next one tries again.
    waits_to_rebalance: Cell<u32>,
    /// Set if the backend checks without a system call.
    can_peek: Cell<bool>,
}

impl<B: Backend + 'static> LoopBackend<B> {
    /// Wraps a backend without registrations.
    #[must_use]
    pub fn new(mut backend: AnyBackend<B>) -> Self {
        let peeked = backend.peek(&mut ReadyList::with_limit(1));
        Self {
            backend: RefCell::new(backend),
            waits_to_rebalance: Cell::new(1),
            can_peek: Cell::new(matches!(peeked, Ok(Peek::Checked | Peek::Pending))),
        }
    }

    /// Borrows the backend.
    ///
    /// # Panics
    /// As [`RefCell::borrow`].
    pub fn borrow(&self) -> Ref<'_, AnyBackend<B>> {
        self.backend.borrow()
    }

    /// As [`borrow`](Self::borrow), unless the backend is borrowed mutably.
    ///
    /// # Errors
    /// As [`RefCell::try_borrow`].
    pub fn try_borrow(&self) -> Result<Ref<'_, AnyBackend<B>>, BorrowError> {
        self.backend.try_borrow()
    }

    /// Borrows the backend mutably.
    ///
    /// # Panics
    /// As [`RefCell::borrow_mut`].
    #[inline]
    pub fn borrow_mut(&self) -> RefMut<'_, AnyBackend<B>> {
        self.backend.borrow_mut()
    }

    /// Returns `true` if the backend is not borrowed.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.backend.try_borrow_mut().is_ok()
    }

    /// Adds the context and the remedy to an error of `call` about one descriptor: see [`Refused::wrap_for`].
    #[cold]
    #[must_use]
    pub fn explain(&self, call: &'static str, number: RawFd, why: io::Error) -> io::Error {
        Refused::wrap_for(call, self.borrow().name(), number, why)
    }

    /// Adds a descriptor.
    ///
    /// # Errors
    /// As [`Backend::add`], [explained](Self::explain).
    #[inline(always)]
    pub fn add(&self, token: Token, owner: Watched, interest: Interest) -> io::Result<()> {
        let number = owner.as_raw_fd();
        self.add_numbered(token, owner, number, interest)
    }

    /// As [`add`](Self::add), for a caller that has the descriptor's `number`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    #[inline(always)]
    pub fn add_numbered(
        &self,
        token: Token,
        owner: Watched,
        number: RawFd,
        interest: Interest,
    ) -> io::Result<()> {
        let added = self.borrow_mut().add(owner, token, interest);
        added.map_err(|why| self.explain("add a descriptor", number, why))?;
        self.waits_to_rebalance.set(1);
        Ok(())
    }

    /// Changes an interest, or arms it again if it is the same.
    ///
    /// # Errors
    /// As [`Backend::modify`].
    #[inline(always)]
    pub fn modify(&self, token: Token, interest: Interest) -> io::Result<()> {
        self.borrow_mut().modify(token, interest)
    }

    /// Removes a descriptor.
    ///
    /// # Errors
    /// As [`Backend::remove`]. The descriptor is removed all the same.
    #[inline(always)]
    pub fn remove(&self, token: Token) -> io::Result<()> {
        self.waits_to_rebalance.set(1);
        self.borrow_mut().remove(token)
    }

    /// Waits, or checks the descriptors if `timeout` is zero.
    ///
    /// # Errors
    /// As [`Backend::wait`].
    #[inline(always)]
    pub fn wait(&self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        self.borrow_mut().wait(timeout, ready)
    }

    /// Submits an operation, and returns its name. Waits report its end under `report`.
    ///
    /// # Errors
    /// As [`Backend::submit`].
    pub fn submit(&self, report: Token, operation: Operation) -> Result<Token, NotSubmitted> {
        self.borrow_mut().submit(report, operation)
    }

    /// Returns the next operation that has ended, with its name. The backend is not borrowed after that.
    pub fn next_completed(&self) -> Option<(Token, Completed)> {
        self.borrow_mut().next_completed()
    }

    /// Asks the system to cancel an operation: see [`Backend::cancel`].
    pub fn cancel(&self, operation: Token) {
        self.borrow_mut().cancel(operation);
    }

    /// Returns `true` if [`peek`](Self::peek) checks the descriptors. If the backend was replaced, the next
    /// peek updates this.
    #[inline]
    #[must_use]
    pub fn can_peek(&self) -> bool {
        self.can_peek.get()
    }

    /// Checks the descriptors without a system call, if the backend can. Returns `true` if only a wait can
    /// report which are ready.
    ///
    /// # Errors
    /// As [`Backend::peek`].
    pub fn peek(&self, ready: &mut ReadyList) -> io::Result<bool> {
        let peeked = self.borrow_mut().peek(ready)?;
        self.can_peek.set(peeked != Peek::Unsupported);
        Ok(peeked == Peek::Pending)
    }

    /// Lets the backend restructure itself if that is due. Called before each wait, but not while events of
    /// an outer iteration's wait are still to be dispatched (rule B3).
    #[inline]
    pub fn rebalance(&self, is_outermost: bool) {
        let waits = self.waits_to_rebalance.get() - 1;
        self.waits_to_rebalance.set(waits);
        if waits == 0 {
            self.rebalance_now(is_outermost);
        }
    }

    #[cold]
    fn rebalance_now(&self, is_outermost: bool) {
        self.waits_to_rebalance
            .set(if is_outermost { REBALANCE_EVERY } else { 1 });
        if is_outermost {
            self.borrow_mut().rebalance();
        }
    }
}

impl<B: Backend + 'static> fmt::Debug for LoopBackend<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopBackend")
            .field("backend", &self.backend)
            .field("can_peek", &self.can_peek)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::stub::stub;

    /// Counts its rebalances; `peek` returns a settable result.
    #[derive(Debug)]
    struct Mine {
        rebalanced: u32,
        peeks: Peek,
        /// Set if `add` fails with `EMFILE`.
        refuses: bool,
    }

    impl Backend for Mine {
        fn name(&self) -> &'static str {
            "mine"
        }
        fn add(&mut self, _: Watched, _: Token, _: Interest) -> io::Result<()> {
            if self.refuses {
                return Err(io::Error::from_raw_os_error(24));
            }
            Ok(())
        }
        fn remove(&mut self, _: Token) -> io::Result<()> {
            Err(io::ErrorKind::NotFound.into())
        }
        fn peek(&mut self, _: &mut ReadyList) -> io::Result<Peek> {
            Ok(self.peeks)
        }
        fn rebalance(&mut self) {
            self.rebalanced += 1;
        }
        stub!(modify wait watched visit drain);
    }

    fn backend(peeks: Peek, refuses: bool) -> (LoopBackend<Mine>, impl Fn(&LoopBackend<Mine>) -> u32) {
        let mine = Mine {
            rebalanced: 0,
            peeks,
            refuses,
        };
        let rebalanced = |backend: &LoopBackend<Mine>| match &*backend.borrow() {
            AnyBackend::Usual(mine) => mine.rebalanced,
            AnyBackend::Other(_) => unreachable!(),
        };
        (LoopBackend::new(AnyBackend::Usual(Box::new(mine))), rebalanced)
    }

    #[test]
    fn b3_it_is_rebalanced_after_a_change_and_every_128_waits_but_not_inside_an_outer_iteration() {
        let (backend, rebalanced) = backend(Peek::Unsupported, false);
        let (token, owner) = (Token::new(0, 0), Rc::new(io::pipe().unwrap().0));
        let iterate = |times: u32, is_outermost| (0..times).for_each(|_| backend.rebalance(is_outermost));
        iterate(1, true);
        iterate(127, true);
        assert_eq!(rebalanced(&backend), 1);
        iterate(1, true);
        assert_eq!(rebalanced(&backend), 2);
        backend.add(token, Watched::from(owner), Interest::READ).unwrap();
        iterate(5, false);
        assert_eq!(rebalanced(&backend), 2);
        iterate(2, true);
        assert_eq!(rebalanced(&backend), 3);
        assert!(backend.remove(token).is_err());
        iterate(1, true);
        assert_eq!(rebalanced(&backend), 4);
    }

    #[test]
    fn r10_whether_it_can_peek_is_known_from_the_start_and_after_each_peek() {
        let mut ready = ReadyList::with_limit(1);
        for (peeks, can_peek, is_pending) in [
            (Peek::Checked, true, false),
            (Peek::Pending, true, true),
            (Peek::Unsupported, false, false),
        ] {
            let (backend, _) = backend(peeks, false);
            assert_eq!(backend.can_peek(), can_peek);
            assert_eq!(backend.peek(&mut ready).unwrap(), is_pending);
            if let AnyBackend::Usual(mine) = &mut *backend.borrow_mut() {
                mine.peeks = Peek::Unsupported;
            }
            assert!(!backend.peek(&mut ready).unwrap() && !backend.can_peek());
        }
    }

    #[test]
    fn b4_what_it_refuses_is_explained_and_nothing_stays_borrowed() {
        let (backend, _) = backend(Peek::Unsupported, true);
        let owner = Watched::from(Rc::new(io::pipe().unwrap().0));
        let refused = backend.add(Token::new(0, 0), owner, Interest::READ).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.starts_with("add a descriptor (mine): ") && text.contains("ulimit -n"),
            "{text}"
        );
        assert!(backend.is_free());
        let _borrowed = backend.borrow();
        assert!(!backend.is_free() && backend.try_borrow().is_ok());
    }
}
