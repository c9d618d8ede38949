//! [`Pollable`]: the descriptor that shows completions of operations to another backend, and so to a foreign loop.
//!
//! It is an eventfd that is registered with the ring. The descriptor of the ring itself does not suffice:
//! with deferred task work (Linux 6.1) the kernel completes nothing until this thread enters, and wakes no
//! poller of the ring when there is work to complete. To a registered eventfd it writes in both cases: when
//! work is queued, and when completions are stored (`io_uring_register_eventfd(3)`).
//!
//! Three rules keep it readable whenever a wait of zero would report completions:
//!
//! - Before each wait of the other backend, `Uring::arm` clears the eventfd, and submits and completes all it
//!   can *after* that. So work that is queued later writes to the eventfd, and work that was queued before is
//!   completed.
//! - If there are completions to report then, `arm` writes to the eventfd itself. Waits never clear it.
//! - A change that only an enter carries out, such as a submission, writes to it while the other backend may
//!   be waiting.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};

/// The eventfd, and a flag that shows if a loop may be waiting for it.
#[derive(Debug)]
pub(crate) struct Pollable {
    eventfd: OwnedFd,
    /// Set if it was cleared, and this process has not written to it since.
    is_clear: bool,
}

impl Pollable {
    pub(crate) fn new(eventfd: OwnedFd) -> Self {
        Self {
            eventfd,
            is_clear: false,
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.is_clear = true;
        let mut count = [0; 8];
        match retry_on_intr(|| rustix::io::read(&self.eventfd, &mut count)) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the eventfd readable, unless this was already done since it was cleared.
    #[inline]
    pub(crate) fn announce(&mut self) {
        if self.is_clear {
            self.set();
        }
    }

    #[cold]
    fn set(&mut self) {
        self.is_clear = false;
        match retry_on_intr(|| rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes())) {
            // A full one is readable.
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => tracing::error!(%error, "the eventfd of a ring was closed"),
        }
    }
}
