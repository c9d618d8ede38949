//! [`Pollable`]: the descriptor that shows completions of operations to another backend, and so to a foreign loop.
//!
//! It is an eventfd that is registered with the ring. The descriptor of the ring itself will not do: with deferred task work (Linux 6.1) the
//! kernel completes nothing until this thread enters, and wakes no poller of the ring when there is something to complete. To a registered
//! eventfd it writes in both cases: when work is queued, and when completions are stored (`io_uring_register_eventfd(3)`).
//!
//! Three rules keep it readable whenever a wait of zero would report completions:
//!
//! - Before each wait of the other backend, [`Uring::arm`] clears the eventfd, and submits and completes all it can *after* that. So whatever
//!   is queued later writes to the eventfd, and whatever was queued before is completed.
//! - If there is something to report then, `arm` writes to the eventfd itself. Waits never clear it.
//! - A change that only an enter carries out, such as a submission, writes to it while the other backend may be waiting.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};

use crate::Uring;
use crate::calls::{Ring, Sys};
use crate::slots::List;
use crate::wait::{FRUITLESS, RETRIES, ROUNDS, in_plain_words};

/// The eventfd, and whether a loop may be waiting for it.
#[derive(Debug)]
pub(crate) struct Pollable {
    eventfd: OwnedFd,
    /// It was cleared, and this process has not written to it since.
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

    fn clear(&mut self) -> io::Result<()> {
        self.is_clear = true;
        let mut count = [0; 8];
        match retry_on_intr(|| rustix::io::read(&self.eventfd, &mut count)) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it readable.
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

impl<S: Sys> Uring<S> {
    /// Wakes a loop that may be waiting, because something is to be done with the next enter.
    #[inline]
    pub(crate) fn announce(&mut self) {
        if let Some(pollable) = &mut self.pollable
            && pollable.is_clear
        {
            pollable.set();
        }
    }

    /// Submits all that is due, so that the kernel writes to the eventfd when something completes. What has completed already is left to the
    /// next wait.
    pub(crate) fn arm(&mut self) -> io::Result<()> {
        if let Some(pollable) = &mut self.pollable {
            pollable.clear()?;
        }
        self.slots.begin_wait();
        let (mut rounds, mut fruitless, mut retries) = (0, 0, 0);
        while rounds < ROUNDS && self.slots.first(List::Found).is_none() {
            let is_all = self.push_all();
            let submitted = self.ring.pushed();
            if is_all && submitted == 0 && (self.ring.is_idle() || fruitless == FRUITLESS) {
                break;
            }
            let (completions, entered) = self.enter(Some(Duration::ZERO));
            match entered {
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::BUSY | Errno::AGAIN) if retries < RETRIES => retries += 1,
                Err(error) => return Err(in_plain_words(error).into()),
            }
            // The flag for work may be set without any. The descriptor of the ring tells which it is.
            let has_done_something = submitted > 0 || completions > 0;
            fruitless = if has_done_something || fruitless + 1 == FRUITLESS && self.ring.has_work() {
                0
            } else {
                fruitless + 1
            };
            rounds += 1;
        }
        self.mark_completed();
        if self.slots.has_listed() || self.failure.is_some() || self.ring.pushed() > 0 || rounds == ROUNDS {
            self.announce();
        }
        Ok(())
    }
}
