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
    /// [notified](crate::Remote::notify) without giving it work, if its time is over, or in a callback of
    /// [`Pollable`](crate::Pollable) that is no place to wait. On a simulated clock it also ends when time stands still for 100 iterations.
    ///
    /// # Errors
    /// What the system says to waiting; interruptions by signals are no errors. `EBADF`, after doing what there was to do, if
    /// the context's own eventfd was closed behind its back: then no thread can wake it any more.
    #[doc(alias = "aio_poll")]
    pub fn poll(&self, wait: Wait) -> io::Result<bool> {
        let before = Before {
            nested: self.0.nesting.progress.get(),
            calls: self.0.nesting.interrupts_seen.get(),
        };
        let deadline = match wait {
            Wait::AtMost(limit) => Some(self.0.now().saturating_add(limit)),
            Wait::Block | Wait::NoBlock => None,
        };
        match self.0.iterate(self, wait) {
            Ok(progress) if self.0.is_progress(progress, before) => Ok(true),
            Ok(_) => match self.0.called_since(before.calls) {
                Called::AndServed => Ok(false),
                _ if wait == Wait::NoBlock => Ok(false),
                called => self.poll_on(deadline, before, called),
            },
            Err(why) => Err(explained("wait", self.backend_name(), why)),
        }
    }

    /// Goes on after an iteration without progress. Apart, so that what most polls do is compiled into [`poll`](Self::poll) once.
    #[inline(never)]
    fn poll_on(&self, deadline: Option<Moment>, before: Before, mut called: Called) -> io::Result<bool> {
        let mut stuck = Stuck::default();
        loop {
            let (next, is_last) = match called {
                Called::AndServed => return Ok(false),
                Called::Just => (Wait::NoBlock, true),
                Called::No => match self.0.go_on(deadline, &mut stuck) {
                    Some(again) => (again, false),
                    None => return Ok(false),
                },
            };
            let progress = match self.0.iterate_apart(self, next) {
                Ok(progress) => progress,
                Err(why) => return Err(explained("wait", self.backend_name(), why)),
            };
            if self.0.is_progress(progress, before) {
                return Ok(true);
            }
            called = self.0.called_since(before.calls);
            if is_last {
                return Ok(false);
            }
        }
    }
}

/// The state of a context when a poll began.
#[derive(Clone, Copy)]
struct Before {
    /// How many nested polls had made progress.
    nested: u64,
    /// How many requests to return had been seen.
    calls: u64,
}

/// Whether somebody has asked that a poll return. What a thread has posted before its request is served before a poll returns for
/// that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Called {
    No,
    /// A notification has not been accepted, which may be that of something posted before.
    Just,
    /// All that was posted before was there when the iteration looked for it.
    AndServed,
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
    /// As [`iterate`](Self::iterate), not inlined.
    #[inline(never)]
    fn iterate_apart(&self, cx: &Context, wait: Wait) -> io::Result<bool> {
        self.iterate(cx, wait)
    }

    /// Whether an iteration made progress, or a poll nested in it did. If this poll is itself nested, the outer one learns of it.
    #[inline]
    fn is_progress(&self, progress: bool, before: Before) -> bool {
        let is_progress = progress || self.nesting.progress.get() != before.nested;
        if is_progress && self.nesting.depth.get() != 0 {
            self.nesting.progress.set(before.nested + 1);
        }
        is_progress
    }

    /// Whether somebody has asked, since the number of requests was `calls`, that a poll return without progress. A poll inside this
    /// one may have returned for that, too.
    #[inline]
    fn called_since(&self, calls: u64) -> Called {
        let now = self.mailbox.interrupts();
        if self.mailbox.is_notified() {
            return if now == calls { Called::No } else { Called::Just };
        }
        self.nesting.interrupts_seen.set(now);
        if now == calls {
            Called::No
        } else {
            Called::AndServed
        }
    }

    /// How a poll goes on after an iteration that came to nothing; `None`: it returns.
    #[cold]
    fn go_on(&self, deadline: Option<Moment>, stuck: &mut Stuck) -> Option<Wait> {
        if self.polling.set.is_calling() || (self.timers.is_simulated() && stuck.is_at(self.now())) {
            return None;
        }
        let Some(deadline) = deadline else {
            return Some(Wait::Block);
        };
        let left = deadline.since(self.now());
        (!left.is_zero()).then_some(Wait::AtMost(left))
    }
}
