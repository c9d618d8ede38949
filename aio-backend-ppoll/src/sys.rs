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
pub trait Sys: fmt::Debug + 'static {
    /// Whether the results come from [`Polled::answer`] instead of the kernel.
    const SIMULATED: bool = false;

    /// `fcntl(F_GETFD)`, to see whether a number is open.
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
