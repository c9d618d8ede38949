//! The usual backend of a context, and the one that stands for a context in a foreign loop.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;

use aio_backend::{Completed, Token};
use aio_backend_epoll::Epoll;
use aio_backend_ladder::{Ladder, make_pollable};
use aio_backend_ppoll::Ppoll;

/// From so many watched descriptors on, epoll is cheaper than ppoll from the first wait on.
const CLIMB_AT: usize = 64;
/// After so many waits epoll has paid for itself, however few descriptors there are: a wait for one takes 120 ns instead of
/// 330, and to set it up costs some microseconds.
const CLIMB_AFTER: u32 = 256;

/// The backend of a context. What it makes a system call in is compiled into the iteration.
pub(crate) type AnyBackend = aio_backend::AnyBackend<Ladder<Ppoll, Epoll>>;

/// The same, as the loop has it.
pub(crate) type LoopBackend = aio_backend::LoopBackend<Ladder<Ppoll, Epoll>>;

/// ppoll, which climbs to epoll when that pays.
fn climbing() -> Ladder<Ppoll, Epoll> {
    Ladder::new(Ppoll::new(), Epoll::new, CLIMB_AT).climbing_after(CLIMB_AFTER)
}

pub(crate) fn usual() -> AnyBackend {
    AnyBackend::Usual(Box::new(climbing()))
}

/// io_uring, and the usual backend where that is not available, or fails.
#[cfg(feature = "uring")]
pub(crate) fn uring() -> AnyBackend {
    match aio_backend_ladder::preferred("io_uring", aio_backend_uring::Uring::new, climbing()) {
        Ok(ladder) => AnyBackend::Other(Box::new(ladder)),
        Err(usual) => AnyBackend::Usual(Box::new(usual)),
    }
}

/// A share of the descriptor that stands for a backend. A backend without one is replaced by epoll, with all registrations, and goes on
/// executing operations, which it reports under `report`, if it can: see [`make_pollable`].
pub(crate) fn pollable(
    backend: &mut AnyBackend,
    report: Option<Token>,
    ended: &mut Vec<(Token, Completed)>,
) -> io::Result<OwnedFd> {
    let (fd, successor) = make_pollable(&mut **backend, Epoll::new, report)?;
    if let Some(successor) = successor {
        let replaced = mem::replace(backend, usual()).into_box();
        *backend = AnyBackend::Other(successor.replace(replaced, ended));
    }
    Ok(fd)
}
