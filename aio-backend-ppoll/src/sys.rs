//! The one place that talks to the kernel, and the seam where something else can take its place.
//!
//! A backend is generic in its [`Sys`], which is [`Kernel`] by default, at no cost. Tests put
//! a kernel there that fails on purpose, or one that is simulated.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use aio_backend::{Interest, Readiness};

pub use crate::array::Polled;
use crate::timeout::timespec;

/// The calls that a [`Ppoll`](crate::Ppoll) makes.
pub trait Sys: fmt::Debug + 'static {
    /// Whether the answers are [given](Polled::answer) instead of being written by the kernel.
    const SIMULATED: bool = false;

    /// `fcntl(F_GETFD)`, to see whether a number is open.
    ///
    /// # Errors
    /// As the system call: `EBADF` if it is not.
    fn find(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// `ppoll`, for at most `timeout` (`None`: no limit). Says how many have an answer.
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
    /// All that are waited for, by place: descriptor and interest.
    pub fn iter(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// What a simulated kernel answers for the one at `place`.
    ///
    /// # Panics
    /// If there is no such place, or if the kernel is not a [simulated](Sys::SIMULATED) one.
    pub fn answer(&mut self, place: usize, readiness: Readiness) {
        self.set_answer(place, readiness);
    }
}
