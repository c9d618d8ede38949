//! The [`Backend`] contract.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::{Interest, ReadyList, Token, Watched};

/// What [`Backend::peek`] found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// This backend cannot look without a system call.
    Unsupported,
    /// It looked; what it found, if anything, is in the list.
    Looked,
}

/// Waits for descriptors on behalf of a loop.
///
/// A backend belongs to one thread, is used through `Box<dyn Backend>`, and needs no `unsafe` to implement. The
/// conformance kit (feature `conformance`) tests everything that is promised here.
///
/// Implementations MUST ensure that:
///
/// 1. readiness is *level-triggered*, unless asked otherwise (6): what is ready and not consumed is reported again by the
///    next wait;
/// 2. an event carries the token given with its descriptor's latest `add`, and no event comes for a token after its
///    [`remove`](Self::remove), even when the number is used again or another descriptor shares the file;
/// 3. [`Interest::NONE`] is silent, hang-ups and errors included, and can be left again by [`modify`](Self::modify);
/// 4. the [`Watched`] share is kept from `add` until `remove` or `drain`, and let go there, whatever they return;
/// 5. no more than [`ReadyList::room`] events are reported, after those that are in the list already, and with more
///    ready than fit, nobody starves: repeated waits come round to everybody. A wait that leaves somebody out has filled
///    the list, or reports at least 64;
/// 6. with [`Interest::EDGE`] an event is reported at least once after each new activity, after `add`, and after each
///    `modify` to another interest; a backend that [reports edges](Self::reports_edges) reports it only then;
/// 7. a wait ends no earlier than its timeout unless something is ready or a signal arrives, and not a millisecond later.
pub trait Backend: fmt::Debug {
    /// A short name for logs: `"ppoll"`, `"epoll"`.
    fn name(&self) -> &'static str;

    /// Watches `fd`, reporting it as `token`.
    ///
    /// The caller never adds a descriptor number that is already watched.
    ///
    /// # Errors
    /// What the system says (such as `EMFILE`, `ENOSPC`, `ENOMEM`), `EBADF` for a number that is not open, `AlreadyExists` for
    /// a token that is there; the backend is then unchanged and the share is dropped. With [`Interest::NONE`] a number that is
    /// not open may be accepted. A descriptor that is always ready, such as a regular file, is no error: it is reported ready
    /// for its interest at every wait.
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()>;

    /// Changes what is waited for.
    ///
    /// # Errors
    /// What the system says, such as `EBADF` for a number that was closed meanwhile and is to be waited for; `NotFound` for an
    /// unknown token. The former interest is then still in force.
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()>;

    /// Stops watching.
    ///
    /// # Errors
    /// What the system says, `NotFound` for an unknown token. In either case the token is gone, and the share is let go.
    fn remove(&mut self, token: Token) -> io::Result<()>;

    /// Waits until something is ready, `timeout` has passed (`None`: no limit; zero: only look), or a signal arrives,
    /// and appends what is ready to `ready`. A timeout beyond what the system can take is cut to what it can.
    ///
    /// # Errors
    /// What the system says. An interrupted wait (`EINTR`) is no error: it returns early with nothing.
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()>;

    /// Looks for readiness without a system call, for backends that can.
    ///
    /// # Errors
    /// What the system says.
    fn peek(&mut self, ready: &mut ReadyList) -> io::Result<Peek> {
        let _ = ready;
        Ok(Peek::Unsupported)
    }

    /// The loop calls this before a wait when no other wait of it is on the stack: the moment for a backend to
    /// restructure itself. Nothing may be lost by it.
    fn rebalance(&mut self) {}

    /// Whether [`Interest::EDGE`] makes a difference for what the system can watch: if not, what is ready is reported by
    /// every wait, as always. A backend that restructures itself may change its answer then.
    fn reports_edges(&self) -> bool {
        false
    }

    /// Makes one descriptor stand for all from now on and for good: it polls readable whenever a wait of zero would report
    /// something, so that a foreign loop can wait on behalf of this one. Returns the same descriptor each time, or `None` if
    /// this backend has no such thing.
    ///
    /// This is the one function that may change what a backend is made of besides [`rebalance`](Self::rebalance). The functions
    /// that take `&self` are questions, without an effect.
    ///
    /// # Errors
    /// What the system says when the descriptor has to be made first; the backend is then as it was.
    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(None)
    }

    /// Whether a wait of zero would report something that [`make_pollable`](Self::make_pollable)'s descriptor does not show, such
    /// as a regular file, which no kernel queue can represent.
    fn always_ready(&self) -> bool {
        false
    }

    /// How many registrations there are, silent ones included; at no cost.
    fn watched(&self) -> usize;

    /// Shows every registration to `each`, as it was told last, and changes nothing: what moves them somewhere else can
    /// fill the other place while this one is still whole.
    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest));

    /// Hands every registration to `each` and is empty afterwards, as if newly made.
    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what every backend has to have.
    #[derive(Debug)]
    struct Least;

    impl Backend for Least {
        fn name(&self) -> &'static str {
            "least"
        }
        fn add(&mut self, _: Watched, _: Token, _: Interest) -> io::Result<()> {
            Ok(())
        }
        fn modify(&mut self, _: Token, _: Interest) -> io::Result<()> {
            Ok(())
        }
        fn remove(&mut self, _: Token) -> io::Result<()> {
            Ok(())
        }
        fn wait(&mut self, _: Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
            Ok(())
        }
        fn watched(&self) -> usize {
            0
        }
        fn visit(&self, _: &mut dyn FnMut(&Watched, Token, Interest)) {}
        fn drain(&mut self, _: &mut dyn FnMut(Watched, Token, Interest)) {}
    }

    #[test]
    fn what_a_backend_does_not_implement_it_does_not_claim() {
        let mut least = Least;
        assert!(!least.reports_edges() && !least.always_ready());
        assert!(least.make_pollable().unwrap().is_none());
        let mut ready = ReadyList::new();
        assert_eq!(least.peek(&mut ready).unwrap(), Peek::Unsupported);
        assert!(ready.is_empty());
    }
}
