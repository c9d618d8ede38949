//! The system calls, and the trait with which a test can replace them.
//!
//! A backend is generic in its [`Sys`], which is [`Kernel`] by default, at no cost. Tests use
//! a kernel that fails on purpose, or a simulated one.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use aio_backend::{Interest, Readiness};

pub use crate::array::Polled;
use crate::timeout::timespec;

/// The calls that a [`Ppoll`](crate::Ppoll) makes.
///
/// # Examples
/// ```
/// use std::{io, os::fd::BorrowedFd, rc::Rc, time::Duration};
/// use aio_backend::{Backend, Interest, ReadyList, Token};
/// use aio_backend_ppoll::{Ppoll, sys::{Kernel, Polled, Sys}};
///
/// /// A kernel without memory to wait.
/// #[derive(Debug)]
/// struct Full;
///
/// impl Sys for Full {
///     fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
///         Kernel.find(fd)
///     }
///     fn ppoll(&self, _: &mut Polled<'_>, _: Option<Duration>) -> io::Result<usize> {
///         Err(io::ErrorKind::OutOfMemory.into())
///     }
/// }
///
/// let (reader, _writer) = io::pipe()?;
/// let mut backend = Ppoll::with_sys(Full);
/// backend.add(Rc::new(reader).into(), Token::new(0, 0), Interest::READ)?;
/// let error = backend.wait(None, &mut ReadyList::new()).unwrap_err();
/// assert_eq!((error.kind(), backend.watched()), (io::ErrorKind::OutOfMemory, 1));
/// # Ok::<(), io::Error>(())
/// ```
pub trait Sys: fmt::Debug + 'static {
    /// `true` if the results come from [`Polled::answer`] instead of the kernel.
    const SIMULATED: bool = false;

    /// `fcntl(F_GETFD)`, which succeeds if the number is open.
    ///
    /// # Errors
    /// As the system call: `EBADF` if it is not.
    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// `ppoll`, for at most `timeout` (`None`: no limit). Returns the number of entries with a result.
    ///
    /// # Errors
    /// As the system call.
    fn ppoll(&self, polled: &mut Polled<'_>, timeout: Option<Duration>) -> io::Result<usize>;
}

/// The kernel itself.
///
/// # Examples
/// ```
/// use aio_backend::Backend;
/// use aio_backend_ppoll::{Ppoll, sys::Kernel};
///
/// let backend: Ppoll<Kernel> = Ppoll::with_sys(Kernel);
/// assert_eq!(backend.watched(), 0);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Sys for Kernel {
    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        rustix::io::fcntl_getfd(fd)?;
        Ok(())
    }

    #[inline]
    fn ppoll(&self, polled: &mut Polled<'_>, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(timespec);
        Ok(rustix::event::poll(polled.entries(), timeout.as_ref())?)
    }
}

impl Polled<'_> {
    /// Returns the descriptor and the interest of all entries, by position.
    pub fn iter(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// Sets the result for the entry at `place`, as a simulated kernel does.
    ///
    /// # Panics
    /// If there is no such place, or if the kernel is not a [simulated](Sys::SIMULATED) one.
    pub fn answer(&mut self, place: usize, readiness: Readiness) {
        self.set_answer(place, readiness);
    }
}
