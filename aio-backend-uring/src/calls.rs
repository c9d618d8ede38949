//! The traits for system calls, and the types of their arguments.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use aio_backend::{Completed, Interest, NotSubmitted, Operation, Readiness, Token};

use crate::config::Config;

/// The largest number of descriptors of one [`Sys::poll`].
pub const POLL_MAX: usize = 64;

/// The calls that a [`Uring`](crate::Uring) makes beside those of its ring.
///
/// # Examples
/// A system that forbids rings:
///
/// ```
/// # use std::io;
/// # use std::os::fd::BorrowedFd;
/// # use std::time::Instant;
/// # use aio_backend::{Completed, Interest, NotSubmitted, Operation, Readiness, Token};
/// use aio_backend_uring::sys::{Kernel, KernelRing, Sys};
/// use aio_backend_uring::{Config, Uring};
///
/// #[derive(Debug)]
/// struct Forbidden;
///
/// impl Sys for Forbidden {
///     type Ring = KernelRing;
///
///     fn setup(&self, _: &Config) -> io::Result<KernelRing> {
///         Err(io::ErrorKind::PermissionDenied.into())
///     }
///     fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
///         Kernel.find(fd)
///     }
///     // ... and so on
/// #   fn poll(&self, fds: &[(BorrowedFd<'_>, Interest)], answers: &mut [Readiness]) -> io::Result<()> {
/// #       Kernel.poll(fds, answers)
/// #   }
/// #   fn is_socket(&self, fd: BorrowedFd<'_>) -> bool {
/// #       Kernel.is_socket(fd)
/// #   }
/// #   fn now(&self) -> Instant {
/// #       Kernel.now()
/// #   }
/// }
///
/// let refused = Uring::with_sys(Forbidden, Config::new()).unwrap_err();
/// assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
/// ```
pub trait Sys: fmt::Debug + 'static {
    /// A ring.
    type Ring: Ring;

    /// Calls `io_uring_setup`, and maps the queues.
    ///
    /// # Errors
    /// As the system calls; `ENOSYS` for a kernel whose rings lack a feature that a backend needs.
    fn setup(&self, config: &Config) -> io::Result<Self::Ring>;

    /// Calls `fcntl(F_GETFD)`, to check that a number is open.
    ///
    /// # Errors
    /// As the system call: `EBADF` if it is not.
    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Calls `poll` without waiting, for at most [`POLL_MAX`] descriptors. Writes the readiness of each,
    /// which is empty if it is not ready, to the same position of `answers`.
    ///
    /// # Errors
    /// As the system call.
    fn poll(&self, fds: &[(BorrowedFd<'_>, Interest)], answers: &mut [Readiness]) -> io::Result<()>;

    /// Calls `fstat`. Returns `true` if a descriptor is a socket, `false` if the call fails.
    fn is_socket(&self, fd: BorrowedFd<'_>) -> bool;

    /// Returns the time of the monotonic clock.
    fn now(&self) -> Instant;
}

/// The queues of a ring, and `io_uring_enter`.
///
/// Implementations MUST behave as `io_uring(7)` does, whether they pass a call on or not.
///
/// # Examples
/// A request that is cancelled completes, and so does the cancellation:
///
/// ```
/// use std::os::fd::AsRawFd;
/// use std::time::Duration;
/// use aio_backend::Readiness;
/// use aio_backend_uring::Config;
/// use aio_backend_uring::sys::{Kernel, Request, Ring, Sys};
///
/// # fn main() -> std::io::Result<()> {
/// let (reader, _writer) = std::io::pipe()?;
/// # let Ok(mut ring) = Kernel.setup(&Config::new()) else {
/// #     println!("skipped: no io_uring");
/// #     return Ok(());
/// # };
/// # /*
/// let mut ring = Kernel.setup(&Config::new())?;
/// # */
/// let (fd, readiness) = (reader.as_raw_fd(), Readiness::IN);
/// assert!(ring.push(Request::Poll { key: 1, fd, readiness, is_multishot: false }));
/// assert!(ring.push(Request::Cancel { key: 2, target: 1 }));
/// assert_eq!(ring.pushed(), 2);
/// let (mut seen, mut errors) = (Vec::new(), 0);
/// while seen.len() < 2 {
///     ring.enter(Some(Duration::from_secs(1)))?;
///     while let Some(completion) = ring.next() {
///         errors += u32::from(completion.result < 0); // the first one: ECANCELED
///         seen.push(completion.key);
///     }
/// }
/// seen.sort();
/// assert_eq!((seen, errors), (vec![1, 2], 1));
/// # Ok(()) }
/// ```
pub trait Ring: fmt::Debug + 'static {
    /// Returns `true` if [`is_idle`](Self::is_idle) sees every completion that another thread has caused,
    /// without a system call.
    fn sees_all(&self) -> bool;

    /// Returns `true` if there is no completion, and no work that an enter would turn into one.
    fn is_idle(&mut self) -> bool;

    /// Returns `true` if it [is idle](Self::is_idle) and no request is in the submission queue. Each check
    /// calls this.
    #[inline]
    fn is_quiet(&mut self) -> bool {
        self.pushed() == 0 && self.is_idle()
    }

    /// Puts a request into the submission queue. Returns `false` if the queue is full. Bit 63 of its user data is cleared: it belongs to
    /// operations.
    fn push(&mut self, request: Request) -> bool;

    /// Returns the number of requests in the submission queue.
    fn pushed(&mut self) -> usize;

    /// Submits the requests and, unless `timeout` is zero, waits until a completion is there or `timeout` has
    /// passed (`None`: no limit). Turns all pending work into completions, as far as there is room in their
    /// queue.
    ///
    /// # Errors
    /// As the system call, such as `ETIME`, `EINTR`, `EBUSY` and `EAGAIN`.
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Returns an eventfd, non-blocking and closed on exec. From then on the kernel writes to it whenever it
    /// stores a completion, and when it queues work that only an enter turns into one.
    ///
    /// # Errors
    /// As `eventfd2` and `io_uring_register`. By default `Unsupported`.
    fn make_eventfd(&mut self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As `!is_idle()`, but certain, by a system call: [`is_idle`](Self::is_idle) may return `false` although
    /// the work is already done.
    fn has_work(&mut self) -> bool {
        !self.is_idle()
    }

    /// Takes the first completion out of its queue.
    fn next(&mut self) -> Option<Completion>;

    /// Takes an operation, which the next enter submits. Returns its name, until [`next_completed`](Self::next_completed) returns it.
    ///
    /// # Errors
    /// The operation, if the ring cannot execute it. By default a ring executes none.
    fn submit(&mut self, operation: Operation) -> Result<Token, NotSubmitted> {
        Err(NotSubmitted::unsupported(operation, "uring"))
    }

    /// Cancels an operation with the next enter. It ends in any case.
    fn cancel(&mut self, operation: Token) {
        let _ = operation;
    }

    /// Returns an operation that has ended, and its name. [`next`](Self::next) accepts the completions of operations, and does not return
    /// them.
    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        None
    }

    /// Returns `true` if an operation has ended that [`next_completed`](Self::next_completed) has not
    /// returned.
    fn has_completed(&self) -> bool {
        false
    }

    /// Returns `true` if operations wait for room in the submission queue.
    fn has_waiting(&self) -> bool {
        false
    }

    /// Returns the number of completions of operations that [`next`](Self::next) has accepted. It wraps.
    fn accepted(&self) -> usize {
        0
    }

    /// Cancels all operations, and waits for up to a second until they have ended. Leaks the buffers of those
    /// that have not. Calls `other` with the completions of other requests that come meanwhile.
    fn end_operations(&mut self, other: &mut dyn FnMut(Completion)) {
        let _ = other;
    }
}

/// A request of a backend to the kernel.
///
/// # Examples
/// ```
/// use aio_backend::Readiness;
/// use aio_backend_uring::sys::Request;
///
/// let once = Request::Poll { key: 7, fd: 0, readiness: Readiness::IN, is_multishot: false };
/// assert!(matches!(once, Request::Poll { key: 7, is_multishot: false, .. }));
/// ```
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
        /// Set if it goes on after a completion.
        is_multishot: bool,
    },
    /// `IORING_OP_ASYNC_CANCEL`. `IORING_OP_POLL_REMOVE` fails with `EALREADY` if a wake-up of the request is pending, and the request
    /// is armed again if the wake-up finds nothing to report.
    Cancel {
        /// Its own user data.
        key: u64,
        /// The user data of the request to cancel.
        target: u64,
    },
}

/// The completion of a request.
///
/// # Examples
/// ```
/// use aio_backend_uring::sys::Completion;
///
/// /// The error of a request that has failed.
/// fn error(completion: Completion) -> Option<std::io::Error> {
///     let number = completion.result.checked_neg().filter(|number| *number > 0)?;
///     Some(std::io::Error::from_raw_os_error(number))
/// }
///
/// let cancelled = Completion { key: 7, result: -125, has_more: false };
/// assert_eq!(error(cancelled).and_then(|error| error.raw_os_error()), Some(125));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The user data of the request.
    pub key: u64,
    /// A readiness, or a negative error number.
    pub result: i32,
    /// Set if the request goes on.
    pub has_more: bool,
}

/// Returns the readiness to request for an interest with this mask. The kernel reports hang-ups, errors and
/// closed numbers in any case.
#[inline]
pub(crate) fn asked(concerns: Readiness) -> Readiness {
    concerns - (Readiness::HUP | Readiness::ERR | Readiness::NVAL)
}
