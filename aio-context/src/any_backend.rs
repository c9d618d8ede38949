//! The usual backend of a context.

use aio_backend_epoll::Epoll;
use aio_backend_ladder::Ladder;
use aio_backend_ppoll::Ppoll;

/// From so many watched descriptors on, epoll is cheaper than ppoll from the first wait on.
const CLIMB_AT: usize = 64;
/// After so many waits epoll has paid for itself, however few descriptors there are: a wait for one takes 120 ns instead of
/// 330, and to set it up costs some microseconds.
const CLIMB_AFTER: u32 = 256;

/// The backend of a context. What it makes a system call in is compiled into the iteration.
pub(crate) type AnyBackend = aio_backend::AnyBackend<Ladder<Ppoll, Epoll>>;

/// ppoll, which climbs to epoll when that pays.
pub(crate) fn usual() -> AnyBackend {
    let ladder = Ladder::new(Ppoll::new(), Epoll::new, CLIMB_AT).climbing_after(CLIMB_AFTER);
    AnyBackend::Usual(Box::new(ladder))
}
