//! Arms the ring for a loop that waits for its operations with another backend: see
//! [`pollable`](crate::pollable).

use std::io;
use std::time::Duration;

use crate::Uring;
use crate::attempts::{Attempts, Entered};
use crate::calls::{Ring, Sys};
use crate::wait::{FRUITLESS, ROUNDS};

impl<S: Sys> Uring<S> {
    /// Wakes a loop that may be waiting, because the next enter has work.
    #[inline]
    pub(crate) fn announce(&mut self) {
        if let Some(pollable) = &mut self.pollable {
            pollable.announce();
        }
    }

    /// Submits all requests that are due, so that the kernel writes to the eventfd at each completion.
    /// Completions that are there already are left to the next wait.
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
                // The flag for work may be set although there is none. The descriptor of the ring tells the
                // two cases apart.
                Ok(Entered::Done) if submitted == 0 && completions == 0 => {
                    let has_work = fruitless + 1 == FRUITLESS && self.ring.has_work();
                    fruitless = if has_work { 0 } else { fruitless + 1 };
                }
                Ok(_) => fruitless = 0,
                // This ends early, as an interrupted wait does, and the loop calls it again.
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
