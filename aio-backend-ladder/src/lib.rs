//! A backend that climbs from one backend to another when there is enough to watch, and back.
//!
//! [`Ladder`] is itself a [`Backend`] and passes the same conformance kit. It begins on the lower rung, climbs at a number of
//! watched descriptors, and goes back at half of that. It moves only in [`Backend::rebalance`], when its loop is not in a
//! wait, and when a foreign loop asks for a descriptor. If the upper rung cannot be made or fails as a whole, the ladder stays
//! on the lower one for good, says so once, and nothing is lost.
//!
//! # What it does not do
//! It does not know which two backends it joins, makes no system call of its own, and does not decide what failed and why:
//! that is in the error.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use aio_backend::{Backend, Interest, Peek, ReadyList, Token, Watched};

/// Where a ladder is, or should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Lower,
    Upper,
}

/// Why a ladder is bound to one rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// It goes where the number of descriptors leads.
    Free,
    /// A foreign loop holds the upper rung's descriptor.
    Up,
    /// The upper rung has failed.
    Down,
}

/// Where to be with `watched` descriptors: up from `climb_at` on, down below half of it, otherwise where it is.
fn next(now: Rung, watched: usize, climb_at: usize, bound: Bound) -> Rung {
    match bound {
        Bound::Up => Rung::Upper,
        Bound::Down => Rung::Lower,
        Bound::Free if watched >= climb_at => Rung::Upper,
        Bound::Free if watched < climb_at.div_ceil(2) => Rung::Lower,
        Bound::Free => now,
    }
}

/// A backend with two rungs: see the [crate's page](crate).
pub struct Ladder<L, U> {
    lower: L,
    upper: Option<U>,
    make_upper: Box<dyn FnMut() -> io::Result<U>>,
    climb_at: usize,
    watched: usize,
    bound: Bound,
}

impl<L: Backend, U: Backend> Ladder<L, U> {
    /// A ladder on `lower` that makes its upper rung when `climb_at` descriptors are watched; with 0, at the first
    /// opportunity, and it never goes back.
    #[must_use]
    pub fn new(lower: L, make_upper: impl FnMut() -> io::Result<U> + 'static, climb_at: usize) -> Self {
        let make_upper = Box::new(make_upper);
        Self {
            lower,
            upper: None,
            make_upper,
            climb_at,
            watched: 0,
            bound: Bound::Free,
        }
    }

    fn here(&self) -> &dyn Backend {
        match &self.upper {
            Some(upper) => upper,
            None => &self.lower,
        }
    }

    fn here_mut(&mut self) -> &mut dyn Backend {
        match &mut self.upper {
            Some(upper) => upper,
            None => &mut self.lower,
        }
    }

    /// Makes the upper rung and moves everything there. On an error everything is back on the lower rung.
    fn climb(&mut self) -> io::Result<()> {
        let mut upper = (self.make_upper)()?;
        let mut failed = None;
        let mut moved = Vec::with_capacity(self.watched);
        self.lower.drain(&mut |fd, token, interest| {
            if failed.is_none() {
                failed = upper.add(fd.clone(), token, interest).err();
            }
            moved.push((fd, token, interest));
        });
        let Some(error) = failed else {
            tracing::debug!(
                from = self.lower.name(),
                to = upper.name(),
                watched = self.watched,
                "climbed"
            );
            self.upper = Some(upper);
            return Ok(());
        };
        upper.drain(&mut |_, _, _| {});
        for (fd, token, interest) in moved {
            put(&mut self.lower, fd, token, interest);
        }
        Err(error)
    }

    fn descend(&mut self) {
        let Some(mut upper) = self.upper.take() else {
            return;
        };
        tracing::debug!(
            from = upper.name(),
            to = self.lower.name(),
            watched = self.watched,
            "descended"
        );
        let lower = &mut self.lower;
        upper.drain(&mut |fd, token, interest| put(lower, fd, token, interest));
    }

    /// The upper rung has failed as a whole: down for good, with one warning.
    fn give_up(&mut self, call: &str, error: &io::Error) {
        if self.bound != Bound::Down {
            tracing::warn!(
                call,
                %error,
                "staying on {} for good, which is slower with many descriptors; {}",
                self.lower.name(),
                remedy(error)
            );
        }
        self.bound = Bound::Down;
        self.descend();
    }
}

/// Puts a descriptor on the lower rung, on which every descriptor that is open can be.
fn put(lower: &mut impl Backend, fd: Watched, token: Token, interest: Interest) {
    if let Err(error) = lower.add(fd, token, interest) {
        tracing::warn!(?token, %error, "a descriptor could not be moved to {}", lower.name());
    }
}

/// Whether an error concerns the backend as a whole, and not the one descriptor: EMFILE, ENFILE, ENOSPC, ENOMEM.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 28))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(24) => "raise the limit of descriptors with `ulimit -n`",
        Some(23) => "the system has no more descriptors: raise fs.file-max",
        Some(28) => "raise fs.epoll.max_user_watches",
        Some(12) => "the kernel has no more memory",
        _ => "nothing is lost",
    }
}

impl<L: Backend, U: Backend> Backend for Ladder<L, U> {
    fn name(&self) -> &'static str {
        self.here().name()
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        let added = self.here_mut().add(fd.clone(), token, interest);
        let added = match added {
            Err(error) if self.upper.is_some() && is_exhaustion(&error) => {
                self.give_up("add", &error);
                self.lower.add(fd, token, interest)
            }
            other => other,
        };
        self.watched += usize::from(added.is_ok());
        added
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        match self.here_mut().modify(token, interest) {
            Err(error) if self.upper.is_some() && is_exhaustion(&error) => {
                self.give_up("modify", &error);
                self.lower.modify(token, interest)
            }
            other => other,
        }
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        let removed = self.here_mut().remove(token);
        let unknown = removed
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        self.watched -= usize::from(!unknown);
        removed
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        match self.here_mut().wait(timeout, ready) {
            Err(error) if self.upper.is_some() => {
                self.give_up("wait", &error);
                self.lower.wait(timeout, ready)
            }
            other => other,
        }
    }

    fn peek(&mut self, ready: &mut ReadyList) -> io::Result<Peek> {
        self.here_mut().peek(ready)
    }

    fn rebalance(&mut self) {
        let now = if self.upper.is_some() {
            Rung::Upper
        } else {
            Rung::Lower
        };
        match (now, next(now, self.watched, self.climb_at, self.bound)) {
            (Rung::Lower, Rung::Upper) => {
                if let Err(error) = self.climb() {
                    self.give_up("climb", &error);
                }
            }
            (Rung::Upper, Rung::Lower) => self.descend(),
            _ => self.here_mut().rebalance(),
        }
    }

    fn pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        if self.bound == Bound::Down {
            return self.lower.pollable();
        }
        if self.upper.is_none() {
            self.climb()?;
        }
        self.bound = Bound::Up;
        self.here_mut().pollable()
    }

    fn always_ready(&self) -> bool {
        self.here().always_ready()
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.here_mut().drain(each);
        self.watched = 0;
    }
}

impl<L: Backend, U: Backend> fmt::Debug for Ladder<L, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ladder")
            .field("on", &self.here())
            .field("watched", &self.watched)
            .field("climb_at", &self.climb_at)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b3_where_to_be() {
        use Bound::{Down, Free, Up};
        use Rung::{Lower, Upper};
        for (now, watched, climb_at, bound, expected) in [
            (Lower, 0, 64, Free, Lower),
            (Lower, 63, 64, Free, Lower),
            (Lower, 64, 64, Free, Upper),
            (Upper, 63, 64, Free, Upper),
            (Upper, 32, 64, Free, Upper),
            (Upper, 31, 64, Free, Lower),
            (Lower, 32, 64, Free, Lower),
            (Lower, 0, 0, Free, Upper),
            (Upper, 0, 0, Free, Upper),
            (Upper, 0, 1, Free, Lower),
            (Lower, 1000, 64, Down, Lower),
            (Upper, 1000, 64, Down, Lower),
            (Upper, 0, 64, Up, Upper),
        ] {
            assert_eq!(
                next(now, watched, climb_at, bound),
                expected,
                "{now:?} {watched} {climb_at} {bound:?}"
            );
        }
    }
}
