//! [`Context::poll`]: iterations until there is progress, and what else ends a poll that may wait (rule D4).

use std::io;

use aio_timers::Moment;

use crate::Context;
use crate::context::{Inner, Wait};
use crate::error::explained;

impl Context {
    /// Does one iteration; true if there was progress: a handler or a bottom half ran, a timer fired, or a handler was
    /// [broken](crate::Handler::broken). Idle bottom halves are no progress.
    ///
    /// Callbacks run inside this call. Any of them may call `poll` again. If one panics, the panic comes out here, and
    /// the context can go on: what had been found and not been called is found again.
    ///
    /// Progress of a poll inside a callback is progress of this one, too.
    ///
    /// A call that may wait goes on, iteration after iteration, until there is progress. It returns false only if somebody
    /// [notified](crate::Remote::notify) without giving it work, if its time is over, or in a callback of [`Pollable`](crate::Pollable) that is no place to
    /// wait. On a simulated clock it also ends when time stands still for 100 iterations.
    ///
    /// # Errors
    /// What the system says to waiting; interruptions by signals are no errors. `EBADF`, after doing what there was to do, if
    /// the context's own eventfd was closed behind its back: then no thread can wake it any more.
    #[doc(alias = "aio_poll")]
    pub fn poll(&self, wait: Wait) -> io::Result<bool> {
        let deadline = match wait {
            Wait::AtMost(limit) => Some(self.0.now().saturating_add(limit)),
            Wait::Block | Wait::NoBlock => None,
        };
        let (nested, calls) = (self.0.nested_progress.get(), self.0.calls_seen.get());
        let (mut next, mut stuck) = (wait, Stuck::default());
        loop {
            let progress = match self.0.iterate(self, next) {
                Ok(progress) => progress,
                Err(why) => return Err(explained("wait", self.backend_name(), why)),
            };
            if progress || self.0.nested_progress.get() != nested {
                if self.0.depth.get() != 0 {
                    self.0.nested_progress.set(nested + 1);
                }
                return Ok(true);
            }
            if self.0.is_called_since(calls) || wait == Wait::NoBlock {
                return Ok(false);
            }
            match self.0.go_on(deadline, &mut stuck) {
                Some(again) => next = again,
                None => return Ok(false),
            }
        }
    }
}

/// Iterations in a row in which simulated time stood still: nothing ends a poll that has too many of them.
#[derive(Default)]
struct Stuck {
    at: Option<Moment>,
    iterations: u32,
}

impl Stuck {
    const MOST: u32 = 100;

    fn is_at(&mut self, now: Moment) -> bool {
        let stands = self.at.replace(now) == Some(now);
        self.iterations = if stands { self.iterations + 1 } else { 0 };
        self.iterations >= Self::MOST
    }
}

impl Inner {
    /// Whether somebody has asked, since the number of requests was this one, that a poll return without progress. A poll inside
    /// this one may have returned for that, too.
    fn is_called_since(&self, calls: u64) -> bool {
        let now = self.shared.calls();
        self.calls_seen.set(now);
        now != calls
    }

    /// How a poll goes on after an iteration that came to nothing; `None`: it returns.
    #[cold]
    fn go_on(&self, deadline: Option<Moment>, stuck: &mut Stuck) -> Option<Wait> {
        if self.polled.is_calling() || (self.simulated && stuck.is_at(self.now())) {
            return None;
        }
        let Some(deadline) = deadline else {
            return Some(Wait::Block);
        };
        let left = deadline.since(self.now());
        (!left.is_zero()).then_some(Wait::AtMost(left))
    }
}
