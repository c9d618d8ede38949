//! A [`Backend`] that climbs from one backend to another when it pays, and back.
//!
//! The lower rung is good for few descriptors, the upper one for many. Which two they are is for the caller to say:
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
//! It goes up with `climb_at` descriptors and comes down with less than half as many, but only inside
//! [`Backend::rebalance`]: that is where the loop says that no wait is on the stack. Silent descriptors count too, so
//! that a pause does not make it switch. It can be told to climb [after a number of waits](Ladder::climbing_after), too:
//! some upper backends are better even for a few descriptors, if only the loop lives long enough. Two things make it go up or stay down for good:
//!
//! - [`Backend::pollable`] asks for a descriptor that stands for all. It climbs at once and stays there, because a
//!   foreign loop keeps that descriptor.
//! - *The upper backend fails as a whole*: it cannot be made, an `add` or `modify` says `EMFILE`, `ENFILE`, `ENOSPC` or
//!   `ENOMEM`, or a wait fails. Everything goes on below, the registration that met the failure included. One warning
//!   names the call, the error, and what can be done about it.
//!
//! A rung that refuses a single descriptor when all are to move gets none of them; it is tried again after about as many
//! changes as there are descriptors.
//!
//! # What it does not do
//! It makes no system call and knows no particular backend. It does not hide that backends differ: a descriptor that
//! one rung takes and the other refuses is accepted or refused by the one that is in charge.

#![forbid(unsafe_code)]

mod rung;
mod stranded;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use aio_backend::{Backend, Interest, Peek, ReadyList, Token, Watched, concerns_all, remedy};

pub use crate::rung::Rung;
use crate::rung::{Hold, next};
use crate::stranded::Stranded;

/// Two backends, one of which is in charge.
pub struct Ladder<L, U> {
    lower: L,
    /// There while it is in charge.
    upper: Option<U>,
    make_upper: Box<dyn FnMut() -> io::Result<U>>,
    climb_at: usize,
    /// How many more waits on the lower rung show that this loop lives long enough for the upper one to pay.
    waits_to_climb: Option<u32>,
    hold: Hold,
    stranded: Stranded,
    /// How many registrations are to come or go before a refused move is tried again.
    patience: usize,
}

impl<L: Backend, U: Backend> Ladder<L, U> {
    /// Starts on `lower` and climbs at `climb_at` descriptors to what `make_upper` makes; it is called again for each
    /// climb, because coming down closes the upper backend.
    ///
    /// With 0 it is always on the upper rung, which is made at once; if that fails, it stays on the lower one.
    pub fn new(lower: L, make_upper: impl FnMut() -> io::Result<U> + 'static, climb_at: usize) -> Self {
        let mut ladder = Self {
            lower,
            upper: None,
            make_upper: Box::new(make_upper),
            climb_at,
            waits_to_climb: None,
            hold: Hold::Free,
            stranded: Stranded::default(),
            patience: 0,
        };
        ladder.switch();
        ladder
    }

    /// Climbs also, and for good, after so many waits on the lower rung, however few descriptors there are: for an upper
    /// backend whose waits are cheaper, but which costs something to set up.
    #[must_use]
    pub fn climbing_after(mut self, waits: u32) -> Self {
        self.waits_to_climb = Some(waits);
        self
    }

    /// Which backend is in charge.
    #[must_use]
    pub fn rung(&self) -> Rung {
        match self.upper {
            Some(_) => Rung::Upper,
            None => Rung::Lower,
        }
    }

    /// The backend that is in charge.
    fn current(&mut self) -> &mut dyn Backend {
        match &mut self.upper {
            Some(upper) => upper,
            None => &mut self.lower,
        }
    }

    fn in_charge(&self) -> &dyn Backend {
        match &self.upper {
            Some(upper) => upper,
            None => &self.lower,
        }
    }

    /// Goes where the number of descriptors says it should be.
    fn switch(&mut self) {
        let now = self.rung();
        let moved = match next(now, self.watched(), self.climb_at, self.hold) {
            to if to == now => return,
            _ if self.patience > 0 => return,
            Rung::Upper => self.climb(),
            Rung::Lower => self.descend(),
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

    /// Moves everything up. If it fails, everything is where it was: the upper rung is filled while the lower one is whole.
    fn climb(&mut self) -> io::Result<()> {
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
                    self.patience = self.watched();
                }
                Err(error)
            }
        }
    }

    /// Moves everything down. If it fails, everything is where it was.
    fn descend(&mut self) -> io::Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        let filled = fill(&mut self.lower, upper);
        if filled.is_ok() {
            self.upper = None;
        } else {
            self.patience = upper.watched();
            self.lower.drain(&mut |_, _, _| {});
        }
        filled
    }

    #[inline(never)]
    fn add_below(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if self.stranded.is_taken(token) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.lower.add(fd, token, interest)?;
        self.patience = self.patience.saturating_sub(1);
        Ok(())
    }

    #[inline(never)]
    fn modify_below(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        if self.stranded.set_interest(token, interest) {
            return Ok(());
        }
        self.lower.modify(token, interest)
    }

    #[inline(never)]
    fn remove_below(&mut self, token: Token) -> io::Result<()> {
        if self.stranded.remove(token) {
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
        self.stranded.wait(&mut self.lower, timeout, ready)
    }

    /// Gives the upper backend up for good, after `call` of it failed as a whole.
    #[cold]
    fn stay_below(&mut self, call: &'static str, error: &io::Error) {
        tracing::warn!(
            call,
            %error,
            remedy = remedy(error),
            "the upper backend failed; {} does its work from now on, and nothing is lost",
            self.lower.name(),
        );
        self.hold = Hold::Lower;
        if let Some(upper) = self.upper.take() {
            upper.visit(&mut |fd, token, interest| {
                if let Err(error) = self.lower.add(fd.clone(), token, interest) {
                    tracing::debug!(?fd, %error, "the lower backend refused a descriptor");
                    self.stranded.insert(fd.clone(), token, interest);
                }
            });
            drop(upper);
        }
    }
}

/// Adds everything that is watched by `other` to an empty rung, up to the first that it refuses.
fn fill(rung: &mut dyn Backend, other: &dyn Backend) -> io::Result<()> {
    let mut filled = Ok(());
    other.visit(&mut |fd, token, interest| {
        if filled.is_ok() {
            filled = rung.add(fd.clone(), token, interest);
        }
    });
    filled
}

/// What makes a system call is inlined by force: see `aio-backend-epoll/src/wait.rs` for what a return after one costs. Nothing is
/// stranded as long as the upper rung is in charge.
impl<L: Backend, U: Backend> Backend for Ladder<L, U> {
    /// The name of the backend that is in charge.
    fn name(&self) -> &'static str {
        match &self.upper {
            Some(upper) => upper.name(),
            None => self.lower.name(),
        }
    }

    #[inline(always)]
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if let Some(upper) = &mut self.upper {
            self.patience = self.patience.saturating_sub(1);
            match upper.add(fd.clone(), token, interest) {
                Err(error) if concerns_all(&error) => self.stay_below("add", &error),
                added => return added,
            }
        }
        self.add_below(fd, token, interest)
    }

    #[inline(always)]
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        if let Some(upper) = &mut self.upper {
            match upper.modify(token, interest) {
                Err(error) if concerns_all(&error) => self.stay_below("modify", &error),
                modified => return modified,
            }
        }
        self.modify_below(token, interest)
    }

    #[inline(always)]
    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.patience = self.patience.saturating_sub(1);
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

    fn pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        if self.hold != Hold::Lower {
            if self.upper.is_none() {
                self.climb()?;
            }
            self.hold = Hold::Upper;
        }
        self.current().pollable()
    }

    fn reports_edges(&self) -> bool {
        self.in_charge().reports_edges()
    }

    fn always_ready(&self) -> bool {
        self.in_charge().always_ready() || self.stranded.has_any()
    }

    fn watched(&self) -> usize {
        self.in_charge().watched() + self.stranded.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.in_charge().visit(each);
        self.stranded.visit(each);
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.patience = 0;
        self.current().drain(each);
        std::mem::take(&mut self.stranded).drain(each);
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
            .field("watched", &self.watched())
            .field("stranded", &self.stranded)
            .finish_non_exhaustive()
    }
}
