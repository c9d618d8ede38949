//! Waits for requests of a queue: for kicks, or by polling.
//!
//! # From polling to sleeping and back
//! While the loop polls, kicks are suppressed. Before the loop sleeps, it enables them again
//! ([`poll_end`](Pollable::poll_end)), and after a full fence it checks the available index once more
//! ([`poll`](Pollable::poll)). The driver does the reverse: it publishes the index, and after a full fence it
//! checks whether a kick is wanted. So the check finds the request, or the driver kicks. Calls work in the
//! same way: the device publishes the used index, and after a full fence it checks whether the driver wants a
//! call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aio_context::{Context, Handler, Pollable};
use rustix::io::Errno;

use super::Vring;
use super::failure::VringError;
use crate::eventfd::signal;
use crate::ring::full_fence;

impl Vring {
    /// Schedules another turn after the turns of the other handlers of the loop.
    pub(super) fn reschedule(&self) {
        self.own_kicks.set(self.own_kicks.get() + 1);
        signal(&self.config.kick);
    }

    /// Takes all kicks, and counts those of the driver.
    fn drain_kicks(&self) -> io::Result<()> {
        let mut count = [0; 8];
        loop {
            match rustix::io::read(&*self.config.kick, &mut count) {
                Ok(_) => {
                    let kicks = u64::from_ne_bytes(count).saturating_sub(self.own_kicks.take());
                    self.config.stats.kicked(kicks);
                    return Ok(());
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Vring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.config.kick.as_fd()
    }
}

impl Handler for Vring {
    fn readable(&self, _: &Context) {
        match self.drain_kicks() {
            Ok(()) => self.run(),
            Err(error) => self.fail(&VringError::Kick(error)),
        }
    }

    fn invalidated(&self, _: &Context, why: io::Error) {
        self.fail(&VringError::Kick(why));
    }
}

impl Pollable for Vring {
    #[inline]
    fn poll(&self) -> bool {
        self.ring.available_index() != self.next_available.get() && !self.stopped.get() && !self.held.get()
    }

    fn poll_ready(&self, _: &Context) {
        self.config.stats.poll_hit();
        self.run();
    }

    fn poll_begin(&self) {
        self.polled.set(true);
        if !self.stopped.get() {
            self.ring.suppress_kicks(self.next_available.get());
        }
    }

    fn poll_end(&self) {
        self.polled.set(false);
        if !self.stopped.get() {
            self.ring.ask_for_kicks(self.next_available.get());
            full_fence();
        }
    }
}
