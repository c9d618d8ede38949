//! [`Eventfd`]: the kernel's counter that can be waited for. Only the calls; `event_notifier` gives them a
//! meaning.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Result, read, retry_on_intr, write};

/// An eventfd, non-blocking, closed on exec.
#[derive(Debug)]
pub(crate) struct Eventfd(OwnedFd);

impl Eventfd {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Adds to the counter; `AGAIN` if it is too full for that.
    pub(crate) fn write(&self, count: u64) -> Result<()> {
        retry_on_intr(|| write(&self.0, &count.to_ne_bytes())).map(|_| ())
    }

    /// Takes the counter; `AGAIN` if it is zero.
    pub(crate) fn read(&self) -> Result<u64> {
        let mut count = [0; 8];
        retry_on_intr(|| read(&self.0, &mut count))?;
        Ok(u64::from_ne_bytes(count))
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
