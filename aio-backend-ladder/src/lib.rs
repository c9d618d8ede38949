//! A [`Backend`] that moves its registrations between two backends: one for few descriptors, one for many.
//!
//! The caller chooses both. The lower level should suit few descriptors, the upper one many:
//!
//! ```
//! use aio_backend::Backend;
//! use aio_backend_epoll::Epoll;
//! use aio_backend_ladder::Ladder;
//! use aio_backend_ppoll::Ppoll;
//!
//! let mut backend = Ladder::new(Ppoll::new(), Epoll::new, 64);
//! assert_eq!(backend.name(), "ppoll");
//! ```
//!
//! # When it switches
//! It moves up at `climb_at` descriptors, and down below half as many, but only inside
//! [`Backend::rebalance`], which the loop calls if no wait is on the stack. Silent descriptors count too, so
//! a pause causes no switch. It can also move up [after a number of waits](Ladder::climbing_after): some
//! upper backends are better even for a few descriptors, if the loop lives long enough. Two events fix the
//! level for good:
//!
//! - A call of [`Backend::make_pollable`]. The ladder moves up at once and stays there, because a foreign
//!   loop keeps that descriptor. From then on the ladder returns the errors of `add` and `modify`, because
//!   the foreign loop would not see the events of the lower backend. If a wait fails, the lower backend does
//!   take over, and [`Backend::always_ready`] returns `true` from then on.
//! - *A failure of the upper backend as a whole*: it cannot be made, an `add` or `modify` returns `EMFILE`,
//!   `ENFILE`, `ENOSPC` or `ENOMEM`, or a wait fails. The lower backend takes over all registrations,
//!   including the one that met the failure. One warning names the call, the error, and a remedy.
//!
//! If a level refuses a single descriptor of a move, the move is undone, and tried again after about as many
//! changes as there are descriptors. On the way down, a number that is closed (`EBADF`) does not stop the
//! move: the next wait reports it as
//! [`Readiness::NVAL`](aio_backend::Readiness::NVAL).
//!
//! # Operations
//! The level in use executes operations, if it can. While some are in flight, the ladder does not move. If
//! the upper backend fails, they are cancelled, and the next wait reports their completions.
//!
//! # What it does not do
//! It makes no system call and depends on no particular backend. It does not hide differences between
//! backends: the one in use accepts or refuses a descriptor.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod level;
mod orphaned;
mod pollable;
mod preferred;
mod split;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use aio_backend::{
    Backend, Completed, Interest, NotSubmitted, Operation, Peek, ReadyList, Token, Watched, concerns_all,
    remedy,
};

pub use crate::level::Level;
use crate::level::{Hold, is_closed, next};
use crate::orphaned::Orphaned;
pub use crate::pollable::{Successor, make_pollable};
pub use crate::preferred::preferred;
pub use crate::split::Split;

/// Two backends, one of which is in use.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use aio_backend::{Backend, Interest, Token};
/// use aio_backend_epoll::Epoll;
/// use aio_backend_ladder::{Ladder, Level};
/// use aio_backend_ppoll::Ppoll;
///
/// let (reader, writer) = std::io::pipe()?;
/// let mut backend = Ladder::new(Ppoll::new(), Epoll::new, 2);
/// backend.add(Rc::new(reader).into(), Token::new(0, 0), Interest::READ)?;
/// backend.rebalance();
/// assert_eq!(backend.level(), Level::Lower);
/// backend.add(Rc::new(writer).into(), Token::new(1, 0), Interest::WRITE)?;
/// backend.rebalance();
/// assert_eq!((backend.level(), backend.name()), (Level::Upper, "epoll"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Ladder<L, U> {
    lower: L,
    /// The upper backend while it is in use.
    upper: Option<U>,
    make_upper: Box<dyn FnMut() -> io::Result<U>>,
    climb_at: usize,
    /// The number of waits on the lower level after which the upper one is worth its set-up.
    waits_to_climb: Option<u32>,
    hold: Hold,
    /// Set if a foreign loop has the descriptor of an upper backend that has failed.
    is_unpollable: bool,
    orphaned: Orphaned,
    /// The token under which waits report completions of operations; `None` if none was submitted.
    report: Option<Token>,
    /// The number of additions and removals before a refused move is tried again.
    changes_until_retry: usize,
}

impl<L: Backend, U: Backend> Ladder<L, U> {
    /// Makes a ladder that starts on `lower`, and moves up to the backend from `make_upper` at `climb_at`
    /// descriptors. Each climb calls `make_upper` again, because a move down closes the upper backend.
    ///
    /// With 0 the ladder makes the upper backend at once and always uses it. If that fails, it stays on the lower level.
    pub fn new(lower: L, make_upper: impl FnMut() -> io::Result<U> + 'static, climb_at: usize) -> Self {
        let mut ladder = Self {
            lower,
            upper: None,
            make_upper: Box::new(make_upper),
            climb_at,
            waits_to_climb: None,
            hold: Hold::Free,
            is_unpollable: false,
            orphaned: Orphaned::default(),
            report: None,
            changes_until_retry: 0,
        };
        ladder.switch();
        ladder
    }

    /// Lets the ladder also move up, for good, after `waits` waits on the lower level, with any number of
    /// descriptors. This suits an upper backend with cheaper waits and a costly set-up.
    #[must_use]
    pub fn climbing_after(mut self, waits: u32) -> Self {
        self.waits_to_climb = Some(waits);
        self
    }

    /// Returns the level in use.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.upper {
            Some(_) => Level::Upper,
            None => Level::Lower,
        }
    }

    /// Returns the backend in use.
    fn current(&mut self) -> &mut dyn Backend {
        match &mut self.upper {
            Some(upper) => upper,
            None => &mut self.lower,
        }
    }

    fn in_use(&self) -> &dyn Backend {
        match &self.upper {
            Some(upper) => upper,
            None => &self.lower,
        }
    }

    /// Moves to the level for the present number of descriptors.
    fn switch(&mut self) {
        let now = self.level();
        let moved = match next(now, self.watched(), self.climb_at, self.hold) {
            to if to == now => return,
            _ if self.changes_until_retry > 0 => return,
            Level::Upper => self.climb(),
            Level::Lower if self.in_use().in_flight() > 0 => return,
            Level::Lower => self.descend(),
        };
        match moved {
            Ok(()) => tracing::debug!(
                to = self.name(),
                watched = self.watched(),
                "the backend was switched"
            ),
            Err(error) => tracing::debug!(%error, "the backend was not switched"),
        }
    }

    /// Moves all registrations up. If this fails, none has moved: the upper level is filled while the lower one is still complete.
    fn climb(&mut self) -> io::Result<()> {
        if self.lower.in_flight() > 0 {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let filled = match (self.make_upper)() {
            Ok(mut upper) => fill(&mut upper, &self.lower)
                .map(|()| upper)
                .map_err(|error| ("add", error)),
            Err(error) => Err(("create", error)),
        };
        match filled {
            Ok(upper) => {
                self.lower.drain(&mut |_, _, _| {});
                self.upper = Some(upper);
                Ok(())
            }
            Err((call, error)) => {
                if call == "create" || concerns_all(&error) {
                    self.stay_below(call, &error);
                } else {
                    self.changes_until_retry = self.watched();
                }
                Err(error)
            }
        }
    }

    /// Moves all registrations down. If this fails, none has moved. A number that was closed meanwhile cannot
    /// move; its registration is orphaned.
    fn descend(&mut self) -> io::Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        let (mut filled, mut closed) = (Ok(()), Orphaned::default());
        upper.visit(&mut |fd, token, interest| {
            if filled.is_err() {
                return;
            }
            match self.lower.add(fd.clone(), token, interest) {
                Err(error) if is_closed(&error) => closed.insert(fd.clone(), token, interest),
                added => filled = added,
            }
        });
        if filled.is_ok() {
            self.upper = None;
            self.orphaned = closed;
        } else {
            self.changes_until_retry = upper.watched();
            self.lower.drain(&mut |_, _, _| {});
        }
        filled
    }

    #[inline(never)]
    fn add_below(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.orphaned.is_taken(token) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.lower.add(fd, token, interest)?;
        self.changes_until_retry = self.changes_until_retry.saturating_sub(1);
        Ok(())
    }

    #[inline(never)]
    fn modify_below(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        if self.orphaned.set_interest(token, interest) {
            return Ok(());
        }
        self.lower.modify(token, interest)
    }

    #[inline(never)]
    fn remove_below(&mut self, token: Token) -> io::Result<()> {
        if self.orphaned.remove(token) {
            return Ok(());
        }
        self.lower.remove(token)
    }

    #[inline(never)]
    fn wait_below(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        if let Some(left) = &mut self.waits_to_climb {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.climb_at = 0;
            }
        }
        self.orphaned.wait(&mut self.lower, timeout, ready)
    }

    /// Drops the upper backend for good, after its `call` failed as a whole.
    #[cold]
    fn stay_below(&mut self, call: &'static str, error: &io::Error) {
        tracing::warn!(
            call,
            %error,
            remedy = remedy(error),
            "the upper backend failed; {} takes over, and no registration is lost",
            self.lower.name(),
        );
        self.is_unpollable |= self.hold == Hold::Upper;
        self.hold = Hold::Lower;
        if let Some(mut upper) = self.upper.take() {
            self.orphaned.take_operations(&mut upper, self.report);
            upper.visit(&mut |fd, token, interest| {
                if let Err(error) = self.lower.add(fd.clone(), token, interest) {
                    tracing::debug!(?fd, %error, "the lower backend refused a descriptor");
                    self.orphaned.insert(fd.clone(), token, interest);
                }
            });
            drop(upper);
        }
    }
}

/// Adds all registrations of `other` to an empty level, up to the first that it refuses.
fn fill(level: &mut dyn Backend, other: &dyn Backend) -> io::Result<()> {
    let mut filled = Ok(());
    other.visit(&mut |fd, token, interest| {
        if filled.is_ok() {
            filled = level.add(fd.clone(), token, interest);
        }
    });
    filled
}

/// Functions that make a system call are inlined by force: see `aio-backend-epoll/src/wait.rs` for the cost of a return after one.
/// There are no orphaned registrations while the upper level is in use.
impl<L: Backend, U: Backend> Backend for Ladder<L, U> {
    /// Returns the name of the backend in use.
    fn name(&self) -> &'static str {
        match &self.upper {
            Some(upper) => upper.name(),
            None => self.lower.name(),
        }
    }

    #[inline(always)]
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if let Some(upper) = &mut self.upper {
            self.changes_until_retry = self.changes_until_retry.saturating_sub(1);
            match upper.add(fd.clone(), token, interest) {
                Err(error) if concerns_all(&error) && self.hold != Hold::Upper => {
                    self.stay_below("add", &error);
                }
                added => return added,
            }
        }
        self.add_below(fd, token, interest)
    }

    #[inline(always)]
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        if let Some(upper) = &mut self.upper {
            match upper.modify(token, interest) {
                Err(error) if concerns_all(&error) && self.hold != Hold::Upper => {
                    self.stay_below("modify", &error);
                }
                modified => return modified,
            }
        }
        self.modify_below(token, interest)
    }

    #[inline(always)]
    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.changes_until_retry = self.changes_until_retry.saturating_sub(1);
        match &mut self.upper {
            Some(upper) => upper.remove(token),
            None => self.remove_below(token),
        }
    }

    #[inline(always)]
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        if let Some(upper) = &mut self.upper {
            match upper.wait(timeout, ready) {
                Ok(()) => return Ok(()),
                Err(error) => self.stay_below("wait", &error),
            }
        }
        self.wait_below(timeout, ready)
    }

    fn peek(&mut self, ready: &mut ReadyList) -> io::Result<Peek> {
        self.current().peek(ready)
    }

    fn rebalance(&mut self) {
        self.switch();
        self.current().rebalance();
    }

    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        if self.hold != Hold::Lower {
            if self.upper.is_none() {
                self.climb()?;
            }
            self.hold = Hold::Upper;
        }
        self.current().make_pollable()
    }

    fn make_operations_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        self.current().make_operations_pollable()
    }

    fn reports_edges(&self) -> bool {
        self.in_use().reports_edges()
    }

    fn always_ready(&self) -> bool {
        self.in_use().always_ready() || self.orphaned.has_any() || self.is_unpollable
    }

    fn submit(&mut self, report: Token, operation: Operation) -> Result<Token, NotSubmitted> {
        if self.orphaned.in_flight() > 0 {
            // The names of new operations could be those of orphaned ones.
            return Err(NotSubmitted::unsupported(operation, self.name()));
        }
        let submitted = self.current().submit(report, operation)?;
        self.report = Some(report);
        Ok(submitted)
    }

    fn cancel(&mut self, operation: Token) {
        self.current().cancel(operation);
    }

    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        let orphaned = self.orphaned.next_completed();
        orphaned.or_else(|| self.current().next_completed())
    }

    fn in_flight(&self) -> usize {
        self.in_use().in_flight() + self.orphaned.in_flight()
    }

    fn end_operations(&mut self) {
        self.current().end_operations();
    }

    fn watched(&self) -> usize {
        self.in_use().watched() + self.orphaned.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.in_use().visit(each);
        self.orphaned.visit(each);
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.changes_until_retry = 0;
        self.current().drain(each);
        self.orphaned.drain(each);
    }
}

impl<L: Backend, U: Backend> fmt::Debug for Ladder<L, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ladder")
            .field("lower", &self.lower)
            .field("upper", &self.upper)
            .field("climb_at", &self.climb_at)
            .field("waits_to_climb", &self.waits_to_climb)
            .field("hold", &self.hold)
            .field("is_unpollable", &self.is_unpollable)
            .field("watched", &self.watched())
            .field("orphaned", &self.orphaned)
            .finish_non_exhaustive()
    }
}
