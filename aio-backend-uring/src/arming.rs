//! Arms the ring for a loop that waits for its operations with another backend: see [`pollable`](crate::pollable).

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::Uring;
use crate::calls::{Ring, Sys};
use crate::slots::List;
use crate::wait::{FRUITLESS, RETRIES, ROUNDS, in_plain_words};

impl<S: Sys> Uring<S> {
    /// Wakes a loop that may be waiting, because something is to be done with the next enter.
    #[inline]
    pub(crate) fn announce(&mut self) {
        if let Some(pollable) = &mut self.pollable {
            pollable.announce();
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
                Ok(()) => retries = 0,
                Err(Errno::INTR) => {}
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
