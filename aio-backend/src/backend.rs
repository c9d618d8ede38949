//! [`Backend`]: the contract of all backends, which wait for descriptors.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::{Completed, Interest, NotSubmitted, Operation, ReadyList, Token, Watched};

/// The result of [`Backend::peek`].
///
/// # Examples
/// ```
/// # use std::{io, time::Duration};
/// # use aio_backend::{Interest, Token, Watched, Readiness};
/// use aio_backend::{Backend, Peek, ReadyList};
///
/// /// Checks the descriptors, without a system call if the backend can.
/// fn check(backend: &mut dyn Backend, ready: &mut ReadyList) -> io::Result<()> {
///     match backend.peek(ready)? {
///         Peek::Checked => Ok(()),
///         Peek::Pending | Peek::Unsupported => backend.wait(Some(Duration::ZERO), ready),
///     }
/// }
/// # #[derive(Debug)]
/// # struct Always;
/// # impl Backend for Always {
/// #     fn name(&self) -> &'static str { "always" }
/// #     fn add(&mut self, _: Watched, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn modify(&mut self, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn remove(&mut self, _: Token) -> io::Result<()> { Ok(()) }
/// #     fn wait(&mut self, _: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
/// #         ready.push(Token::new(0, 0), Readiness::IN);
/// #         Ok(())
/// #     }
/// #     fn watched(&self) -> usize { 1 }
/// #     fn visit(&self, _: &mut dyn FnMut(&Watched, Token, Interest)) {}
/// #     fn drain(&mut self, _: &mut dyn FnMut(Watched, Token, Interest)) {}
/// # }
/// # let mut backend = Always;
///
/// let mut ready = ReadyList::new();
/// check(&mut backend, &mut ready)?;
/// assert_eq!(ready.len(), 1);
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// This backend cannot check descriptors without a system call.
    Unsupported,
    /// The backend has checked, and appended the events to the list, if there are any.
    Checked,
    /// The backend has appended nothing. There may be events, which only a wait reports.
    Pending,
}

/// Waits for descriptors on behalf of an event loop.
///
/// A backend belongs to one thread, works as a `Box<dyn Backend>`, and needs no `unsafe` code. The conformance kit (feature
/// `conformance`) tests every promise of this contract.
///
/// Implementations MUST ensure that:
///
/// 1. readiness is *level-triggered* without [`Interest::EDGE`] (6): if a descriptor stays ready, the next wait reports it again;
/// 2. an event carries the token of its descriptor's latest `add`, and no event carries a token after its
///    [`remove`](Self::remove), even if the descriptor number is reused or another descriptor shares the file;
/// 3. a registration with [`Interest::NONE`] reports nothing, not even hang-ups and errors, until [`modify`](Self::modify) sets
///    another interest;
/// 4. the backend keeps the [`Watched`] from `add` until `remove` or `drain`, which drop it or hand it over
///    even if they fail. After the next wait, and after the end of the backend, the system keeps nothing of
///    the registration either: a file whose owners are gone is closed;
/// 5. a wait appends at most [`ReadyList::room`] events to those in the list. If more descriptors are ready, none starves: repeated
///    waits report each of them. A wait that leaves out a ready descriptor has filled the list, or reports at least 64 events. It may
///    report the readiness of one descriptor in several events, unless the interest is in one event (8);
/// 6. with [`Interest::EDGE`] an event is reported at least once after each new activity, after `add`, and after each
///    `modify`, also to the same interest; a backend that [reports edges](Self::reports_edges) reports it only then;
/// 7. a wait returns no earlier than its timeout unless a descriptor is ready or a signal arrives. It returns
///    less than a millisecond later, or less than a thousandth of the timeout, which is the delay that the
///    system may add to a longer sleep;
/// 8. with [`Interest::ONESHOT`] the first event carries all readiness of the moment. Afterwards the interest
///    is [`Interest::NONE`], as if [`modify`](Self::modify) had set it: nothing is reported, and
///    [`visit`](Self::visit) and [`drain`](Self::drain) show it. `modify` with any interest, also the same
///    one, ends that;
/// 9. an event is within the interest, except [`Readiness::HUP`] and [`Readiness::ERR`]: [`Readiness::RDHUP`] belongs to
///    [`Interest::READ`], [`Readiness::PRI`] to [`Interest::PRIORITY`].
///
/// A backend that executes operations MUST also ensure that:
///
/// 10. an operation that [`submit`](Self::submit) has accepted ends exactly once:
///     [`next_completed`](Self::next_completed) returns it, with its buffers. The backend keeps the buffers
///     until the system has finished with them, even if the backend itself is dropped;
/// 11. while [`next_completed`](Self::next_completed) would return something, every wait reports the token that was given to `submit`, with
///     [`Readiness::IN`](crate::Readiness::IN), and does not block.
///
/// [`Readiness::HUP`]: crate::Readiness::HUP
/// [`Readiness::ERR`]: crate::Readiness::ERR
/// [`Readiness::RDHUP`]: crate::Readiness::RDHUP
/// [`Readiness::PRI`]: crate::Readiness::PRI
///
/// # Examples
/// The [crate page](crate) has a complete backend. A loop uses one like this:
///
/// ```
/// # use std::{io, rc::Rc, time::Duration};
/// # use aio_backend::Watched;
/// use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
///
/// /// Returns the readiness of a descriptor, which is `None` after `timeout` without an event.
/// fn wait_for(backend: &mut dyn Backend, fd: Watched, timeout: Duration) -> io::Result<Option<Readiness>> {
///     let (token, mut ready) = (Token::new(0, 0), ReadyList::new());
///     backend.add(fd, token, Interest::READ)?;
///     let waited = backend.wait(Some(timeout), &mut ready);
///     backend.remove(token)?;
///     waited.map(|()| ready.iter().next().map(|(_, readiness)| readiness))
/// }
/// # /// Each descriptor is always readable.
/// # #[derive(Debug, Default)]
/// # struct Eager(Option<(Watched, Token, Interest)>);
/// # impl Backend for Eager {
/// #     fn name(&self) -> &'static str { "eager" }
/// #     fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
/// #         self.0 = Some((fd, token, interest));
/// #         Ok(())
/// #     }
/// #     fn modify(&mut self, _: Token, _: Interest) -> io::Result<()> { Ok(()) }
/// #     fn remove(&mut self, _: Token) -> io::Result<()> {
/// #         self.0 = None;
/// #         Ok(())
/// #     }
/// #     fn wait(&mut self, _: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
/// #         if let Some((_, token, interest)) = &self.0 {
/// #             ready.push(*token, interest.mask() & Readiness::IN);
/// #         }
/// #         Ok(())
/// #     }
/// #     fn watched(&self) -> usize { usize::from(self.0.is_some()) }
/// #     fn visit(&self, _: &mut dyn FnMut(&Watched, Token, Interest)) {}
/// #     fn drain(&mut self, _: &mut dyn FnMut(Watched, Token, Interest)) {}
/// # }
/// # let mut backend = Eager::default();
///
/// let file = Rc::new(std::fs::File::open(std::env::current_exe()?)?);
/// assert_eq!(wait_for(&mut backend, file.into(), Duration::ZERO)?, Some(Readiness::IN));
/// # Ok::<(), io::Error>(())
/// ```
pub trait Backend: fmt::Debug {
    /// Returns a short name for logs, such as `"ppoll"` or `"epoll"`.
    fn name(&self) -> &'static str;

    /// Watches `fd`. Its events carry `token`.
    ///
    /// The caller never adds a descriptor number that is already watched. It passes only [canonical](Interest::canonical) interests, here
    /// and in [`modify`](Self::modify).
    ///
    /// # Errors
    /// The error of the system (such as `EMFILE`, `ENOSPC`, `ENOMEM`), `EBADF` for a number that is not open, `AlreadyExists` for
    /// a token that is registered. The backend is then unchanged, and `fd` is dropped. With [`Interest::NONE`] a backend may accept
    /// a number that is not open. A descriptor that is always ready, such as a regular file, is not an error: every wait reports
    /// it ready for its interest.
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()>;

    /// Changes the interest of a registration. With [`Interest::EDGE`] or [`Interest::ONESHOT`] it arms the
    /// registration again, even if the interest is the same.
    ///
    /// # Errors
    /// The error of the system, such as `EBADF` if the number was closed meanwhile and the interest is not [`Interest::NONE`];
    /// `NotFound` for an unknown token. The former interest then stays in force.
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()>;

    /// Removes a registration.
    ///
    /// # Errors
    /// The error of the system call; `NotFound` for an unknown token. In either case the token is unknown afterwards, and its
    /// [`Watched`] is dropped.
    fn remove(&mut self, token: Token) -> io::Result<()>;

    /// Waits until a descriptor is ready, `timeout` has passed, or a signal arrives, and appends the events to `ready`.
    ///
    /// `None` waits without a limit; a timeout of zero only checks. A timeout beyond the range of the system
    /// call is reduced to the largest possible one.
    ///
    /// # Errors
    /// The error of the system call. An interrupted wait (`EINTR`) is not an error: it returns early, without
    /// events, or goes on for the rest of the timeout.
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()>;

    /// Checks the descriptors without a system call, if the backend can.
    ///
    /// A backend returns [`Peek::Unsupported`] either always or never. After [`Peek::Pending`] the caller
    /// waits with a timeout of zero, now or later.
    ///
    /// # Errors
    /// The error of the system.
    fn peek(&mut self, ready: &mut ReadyList) -> io::Result<Peek> {
        let _ = ready;
        Ok(Peek::Unsupported)
    }

    /// Lets the backend change its internal structure, without losing a registration or an event.
    ///
    /// The loop calls this before a wait if no other wait of the same loop is on the stack.
    fn rebalance(&mut self) {}

    /// Returns whether [`Interest::EDGE`] has an effect for descriptors that the system can watch.
    ///
    /// Without an effect every wait reports a ready descriptor, as with a level-triggered interest. The
    /// result may change after the backend has restructured itself.
    fn reports_edges(&self) -> bool {
        false
    }

    /// Returns a descriptor that polls readable whenever a wait of zero would report an event, so that a foreign loop can wait on
    /// behalf of this one.
    ///
    /// Returns the same descriptor each time; it stays valid for the life of the backend. Returns `None` if the backend cannot
    /// offer one.
    ///
    /// Only this function and [`rebalance`](Self::rebalance) may restructure the backend. Functions that take `&self` have no effect.
    ///
    /// # Errors
    /// The error of the system, if the descriptor must be created first. The backend is then unchanged.
    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(None)
    }

    /// As [`make_pollable`](Self::make_pollable), for completions of operations only: the descriptor polls
    /// readable whenever a wait of zero would report completions. Another backend can then wait on behalf of
    /// this one, which has no registrations in that case.
    ///
    /// The caller calls this before each wait of the other backend. The call passes all deferred submissions
    /// and cancellations to the system; later ones make the descriptor readable. It may also be readable
    /// without completions; a wait of zero, or another call of this function, ends that.
    ///
    /// # Errors
    /// As [`make_pollable`](Self::make_pollable), and as [`wait`](Self::wait).
    fn make_operations_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(None)
    }

    /// Returns whether a wait of zero would report an event for which [`make_pollable`](Self::make_pollable)'s descriptor does not
    /// become readable, such as the event of a regular file, which no kernel queue can represent.
    fn always_ready(&self) -> bool {
        false
    }

    /// Submits an operation, without a system call. The next wait passes it to the system, together with all
    /// others.
    ///
    /// Returns the name of the operation, which is valid until [`next_completed`](Self::next_completed)
    /// returns it. The indices of such names are dense, and independent of those of registrations. `report`
    /// is the token under which waits report completions: it is not registered, and is the same in each call.
    ///
    /// # Errors
    /// The operation and the reason: `Unsupported` if the backend, in its present state, executes no
    /// operations, or cannot use memory of this kind.
    fn submit(&mut self, report: Token, operation: Operation) -> Result<Token, NotSubmitted> {
        let _ = report;
        Err(NotSubmitted::unsupported(operation, self.name()))
    }

    /// Makes the next wait ask the system to cancel an operation. The operation ends in any case; its result
    /// shows whether it was cancelled. No effect on an operation that has ended.
    fn cancel(&mut self, operation: Token) {
        let _ = operation;
    }

    /// Returns the next operation that has ended, and its name, in the order in which they ended.
    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        None
    }

    /// Returns the number of operations that were submitted and that [`next_completed`](Self::next_completed) has not returned.
    fn in_flight(&self) -> usize {
        0
    }

    /// Cancels all operations and waits until they have ended, at most a second.
    /// [`next_completed`](Self::next_completed) then returns them. If the system still uses the buffers of an
    /// operation after that time, they are leaked, and the operation ends with `ETIMEDOUT` and without
    /// buffers.
    ///
    /// A caller that drops or replaces the backend calls this to get the operations back.
    fn end_operations(&mut self) {}

    /// Returns the number of registrations, with those of [`Interest::NONE`], in constant time.
    fn watched(&self) -> usize;

    /// Calls `each` with every registration and its latest interest, and changes nothing.
    ///
    /// A caller that moves registrations to another backend can fill the new one while this one is still
    /// complete.
    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest));

    /// Removes every registration and passes it to `each`. The backend is then as if newly made.
    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub::stub;

    /// A backend with only the required functions.
    #[derive(Debug)]
    struct Least;

    impl Backend for Least {
        fn name(&self) -> &'static str {
            "least"
        }
        stub!(add modify remove wait watched visit drain);
    }

    #[test]
    fn defaults_claim_no_optional_feature() {
        let mut least = Least;
        assert!(!least.reports_edges() && !least.always_ready());
        assert!(least.make_pollable().unwrap().is_none());
        let mut ready = ReadyList::new();
        assert_eq!(least.peek(&mut ready).unwrap(), Peek::Unsupported);
        assert!(ready.is_empty());
    }

    #[test]
    fn s1_a_backend_without_operations_gives_them_back() {
        let mut least = Least;
        let file = std::sync::Arc::new(std::fs::File::open("/proc/self/stat").unwrap());
        let report = Token::new(0, 0);
        let refused = least
            .submit(report, Operation::read(file, 0, vec![0; 5]))
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        assert_eq!(
            refused.into_operation().buffers().and_then(crate::Buffers::len),
            Some(5)
        );
        least.cancel(report);
        least.end_operations();
        assert!(least.next_completed().is_none() && least.in_flight() == 0);
    }
}
