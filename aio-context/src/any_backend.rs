//! [`AnyBackend`]: the backend of a context, with a short way to wait on the usual one.
//!
//! Whatever returns after a system call is a mispredicted return on kernels that clear the return stack, and costs about as much as
//! fifty instructions. So what makes a system call on the usual backend is compiled into its caller, and only with another backend it is
//! a virtual call. Everything else goes through the trait, whichever it is; nothing but [`AnyBackend::usual`] knows what it is made of.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use aio_backend::{Backend, Interest, ReadyList, Token, Watched};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;

/// From so many watched descriptors on, epoll is cheaper than ppoll from the first wait on.
const CLIMB_AT: usize = 64;
/// After so many waits epoll has paid for itself, however few descriptors there are: a wait for one takes 120 ns instead of
/// 330, and to set it up costs some microseconds.
const CLIMB_AFTER: u32 = 256;

/// The backend of a context.
pub(crate) enum AnyBackend {
    Usual(Box<Ladder<Ppoll, Epoll>>),
    Other(Box<dyn Backend>),
}

impl AnyBackend {
    /// ppoll, which climbs to epoll when that pays.
    pub(crate) fn usual() -> Self {
        let ladder = Ladder::new(Ppoll::new(), Epoll::new, CLIMB_AT).climbing_after(CLIMB_AFTER);
        Self::Usual(Box::new(ladder))
    }

    /// As [`Backend::add`].
    #[inline(always)]
    pub(crate) fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Usual(ladder) => ladder.add(fd, token, interest),
            Self::Other(backend) => backend.add(fd, token, interest),
        }
    }

    /// As [`Backend::modify`].
    #[inline(always)]
    pub(crate) fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Self::Usual(ladder) => ladder.modify(token, interest),
            Self::Other(backend) => backend.modify(token, interest),
        }
    }

    /// As [`Backend::remove`].
    #[inline(always)]
    pub(crate) fn remove(&mut self, token: Token) -> io::Result<()> {
        match self {
            Self::Usual(ladder) => ladder.remove(token),
            Self::Other(backend) => backend.remove(token),
        }
    }

    /// As [`Backend::wait`].
    #[inline(always)]
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        match self {
            Self::Usual(ladder) => ladder.wait(timeout, ready),
            Self::Other(backend) => backend.wait(timeout, ready),
        }
    }
}

impl Deref for AnyBackend {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Usual(ladder) => &**ladder,
            Self::Other(backend) => &**backend,
        }
    }
}

impl DerefMut for AnyBackend {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::Usual(ladder) => &mut **ladder,
            Self::Other(backend) => &mut **backend,
        }
    }
}

impl fmt::Debug for AnyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
