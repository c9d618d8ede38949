//! The traits for system calls, and the types of their arguments.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use aio_backend::{Interest, Readiness};

use crate::config::Config;

/// The largest number of descriptors of one [`Sys::poll`].
pub const POLL_MAX: usize = 64;

/// The calls that a [`Uring`](crate::Uring) makes beside those of its ring.
pub trait Sys: fmt::Debug + 'static {
    /// A ring.
    type Ring: Ring;

    /// `io_uring_setup`, and the mapping of its queues.
    ///
    /// # Errors
    /// As the system calls; `ENOSYS` for a kernel whose rings lack what a backend needs.
    fn setup(&self, config: &Config) -> io::Result<Self::Ring>;

    /// `fcntl(F_GETFD)`, to see whether a number is open.
    ///
    /// # Errors
    /// As the system call: `EBADF` if it is not.
    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// `poll` without a timeout, of at most [`POLL_MAX`] descriptors. Writes the readiness of each, which is empty if it is not ready,
    /// to the same position of `answers`.
    ///
    /// # Errors
    /// As the system call.
    fn poll(&self, fds: &[(BorrowedFd<'_>, Interest)], answers: &mut [Readiness]) -> io::Result<()>;

    /// `fstat`, to see whether a descriptor is a socket. If the call fails, it is none.
    fn is_socket(&self, fd: BorrowedFd<'_>) -> bool;

    /// The monotonic clock.
    fn now(&self) -> Instant;
}

/// The queues of a ring, and `io_uring_enter`.
///
/// Implementations MUST behave as `io_uring(7)` does, whether they pass a call on or not.
pub trait Ring: fmt::Debug + 'static {
    /// Returns whether [`is_idle`](Self::is_idle) sees every completion that another thread has caused, without a system call.
    fn sees_all(&self) -> bool;

    /// Returns whether there is neither a completion nor anything that an enter would turn into one.
    fn is_idle(&mut self) -> bool;

    /// Puts a request into the submission queue. Returns `false` if the queue is full.
    fn push(&mut self, request: Request) -> bool;

    /// Returns the number of requests in the submission queue.
    fn pushed(&mut self) -> usize;

    /// Submits the requests and, unless `timeout` is zero, waits until a completion is there or `timeout` has passed (`None`: no limit).
    /// It turns all that is pending into completions, as far as there is room in their queue.
    ///
    /// # Errors
    /// As the system call, such as `ETIME`, `EINTR`, `EBUSY` and `EAGAIN`.
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Takes the first completion out of its queue.
    fn next(&mut self) -> Option<Completion>;
}

/// What a backend asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// `IORING_OP_POLL_ADD`. The kernel always reports hang-ups, errors and half closes besides.
    Poll {
        /// Its user data.
        key: u64,
        /// The descriptor.
        fd: RawFd,
        /// The readiness to wait for.
        readiness: Readiness,
        /// It goes on after a completion.
        is_multishot: bool,
    },
    /// `IORING_OP_POLL_REMOVE`.
    Cancel {
        /// Its own user data.
        key: u64,
        /// The user data of the request to cancel.
        target: u64,
    },
}

/// The completion of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The user data of the request.
    pub key: u64,
    /// A readiness, or a negative error number.
    pub result: i32,
    /// The request goes on.
    pub has_more: bool,
}

/// Returns what to ask for. The kernel reports hang-ups, errors and closed numbers without being asked to.
#[inline]
pub(crate) fn asked(interest: Interest) -> Readiness {
    interest.mask() - (Readiness::HUP | Readiness::ERR | Readiness::NVAL)
}
