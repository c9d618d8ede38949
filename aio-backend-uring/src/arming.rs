//! Arms the ring for a loop that waits for its operations with another backend: see [`pollable`](crate::pollable).

use std::io;
use std::time::Duration;

use crate::Uring;
use crate::attempts::{Attempts, Entered};
use crate::calls::{Ring, Sys};
use crate::wait::{FRUITLESS, ROUNDS};

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
        let (mut rounds, mut fruitless, mut attempts) = (0, 0, Attempts::default());
        while rounds < ROUNDS && !self.slots.has_found() {
            let is_all = self.push_all();
            let submitted = self.ring.pushed();
            if is_all && submitted == 0 && (self.ring.is_idle() || fruitless == FRUITLESS) {
                break;
            }
            let (completions, entered) = self.enter(Some(Duration::ZERO));
            match attempts.judge(entered, completions) {
                // The flag for work may be set without any. The descriptor of the ring tells which it is.
                Ok(Entered::Done) if submitted == 0 && completions == 0 => {
                    let has_work = fruitless + 1 == FRUITLESS && self.ring.has_work();
                    fruitless = if has_work { 0 } else { fruitless + 1 };
                }
                Ok(_) => fruitless = 0,
                // As a wait that is interrupted, it ends early, and the loop comes back.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => rounds = ROUNDS,
                Err(error) => return Err(error),
            }
            rounds = ROUNDS.min(rounds + 1);
        }
        self.mark_completed();
        if self.slots.has_listed() || self.failure.is_some() || self.ring.pushed() > 0 || rounds == ROUNDS {
            self.announce();
        }
        Ok(())
    }
}
