//! [`Context::poll`]: iterates until there is progress, or until another condition ends a poll that may wait
//! (rule D4).

use std::io;

use aio_backend::Refused;
use aio_notify::{BeforePoll, Interrupted};
use aio_timers::{Moment, Standstill};

use crate::Context;
use crate::context::{Inner, Wait};

impl Context {
    /// Runs one iteration or, if it may wait, iterations until there is progress. Returns `true` if there was
    /// progress: a handler or a bottom half ran, a timer fired, or a handler was
    /// [invalidated](crate::Handler::invalidated). Idle bottom halves are no progress.
    ///
    /// Callbacks run inside this call. Each of them may call `poll` again. If one panics, the panic
    /// propagates out of this call, and the context stays usable: events whose handlers were not called yet
    /// are found again.
    ///
    /// Progress of a poll inside a callback also counts as progress of the outer poll.
    ///
    /// A call that may wait returns `false` only in these cases: a thread [notified](crate::Remote::notify)
    /// without giving the loop work, the time is over, or the call comes from a callback of
    /// [`Pollable`](crate::Pollable) that must not wait. On a simulated clock it also returns `false` if time
    /// stands still for 100 iterations.
    ///
    /// # Errors
    /// The error of the system's wait; interruptions by signals are no errors. `EBADF`, after serving
    /// everything that was due, if other code closed the context's own eventfd: then no thread can wake the
    /// loop any more.
    #[doc(alias = "aio_poll")]
    #[inline]
    pub fn poll(&self, wait: Wait) -> io::Result<bool> {
        let inner = &self.0;
        inner.polling.adopt_params(&inner.shared, &inner.pacing);
        match (wait, inner.polling.controller.is_enabled()) {
            (Wait::NoBlock, _) => self.poll_as::<false, false>(wait),
            (_, false) => self.poll_as::<true, false>(wait),
            (_, true) => self.poll_as::<true, true>(wait),
        }
    }

    // Each kind of iteration, and its shortcut, has a function of its own: a common one would have fewer
    // registers for each.
    /// Does not touch the stack, so that the choice costs little.
    #[inline(never)]
    fn poll_as<const WAITS: bool, const POLLS: bool>(&self, wait: Wait) -> io::Result<bool> {
        let inner = &self.0;
        let is_short = if POLLS {
            wait == Wait::Block && inner.has_to_poll_first()
        } else {
            inner.has_descriptors_only() && (!WAITS || inner.pacing.spins_next())
        };
        if is_short {
            self.poll_shortly::<WAITS, POLLS>(wait)
        } else {
            self.iterate_as::<WAITS, POLLS>(wait)
        }
    }

    /// Takes a shortcut: an iteration that does not wait. If it finds nothing, and the poll may wait, a full
    /// iteration follows.
    #[inline(never)]
    fn poll_shortly<const WAITS: bool, const POLLS: bool>(&self, wait: Wait) -> io::Result<bool> {
        let first = if POLLS {
            self.0.poll_first(self)
        } else {
            self.0.check_only::<WAITS>(self)
        };
        match first {
            Ok(Some((progress, before))) => {
                self.end_or_go_on::<WAITS>(progress, before, || self.0.deadline(wait))
            }
            Ok(None) if WAITS => self.iterate_as::<WAITS, POLLS>(wait),
            Ok(None) => Ok(false),
            Err(why) => Err(self.cannot_wait(why)),
        }
    }

    #[inline(never)]
    fn iterate_as<const WAITS: bool, const POLLS: bool>(&self, wait: Wait) -> io::Result<bool> {
        let wait = if WAITS { wait } else { Wait::NoBlock };
        let before = self.0.nesting.before();
        let deadline = self.0.deadline(wait);
        let progress = self.0.iterate::<WAITS, POLLS>(self, wait);
        let progress = progress.map_err(|why| self.cannot_wait(why))?;
        self.end_or_go_on::<WAITS>(progress, before, || deadline)
    }

    /// Ends the poll after an iteration, if there was progress or the poll may not wait. Otherwise goes on
    /// until its `deadline`.
    #[inline(always)]
    fn end_or_go_on<const WAITS: bool>(
        &self,
        progress: bool,
        before: BeforePoll,
        deadline: impl FnOnce() -> Option<Moment>,
    ) -> io::Result<bool> {
        if self.0.nesting.is_progress(progress, before) {
            return Ok(true);
        }
        match self.0.interrupted_since(before) {
            Interrupted::Served => Ok(false),
            interrupted if WAITS => self.poll_on(deadline(), before, interrupted),
            _ => Ok(false),
        }
    }

    #[cold]
    fn cannot_wait(&self, why: io::Error) -> io::Error {
        Refused::wrap("wait", self.backend_name(), why)
    }

    /// Goes on after an iteration without progress.
    #[inline(never)]
    fn poll_on(
        &self,
        deadline: Option<Moment>,
        before: BeforePoll,
        mut interrupted: Interrupted,
    ) -> io::Result<bool> {
        let mut standstill = Standstill::default();
        loop {
            let (next, is_last) = match interrupted {
                Interrupted::Served => return Ok(false),
                Interrupted::Unserved => (Wait::NoBlock, true),
                Interrupted::No => match self.0.go_on(deadline, &mut standstill) {
                    Some(again) => (again, false),
                    None => return Ok(false),
                },
            };
            let progress = self.0.iterate_apart(self, next);
            let progress = progress.map_err(|why| self.cannot_wait(why))?;
            if self.0.nesting.is_progress(progress, before) {
                return Ok(true);
            }
            interrupted = self.0.interrupted_since(before);
            if is_last {
                return Ok(false);
            }
        }
    }
}

impl Inner {
    /// Runs one more iteration.
    #[inline(never)]
    fn iterate_apart(&self, cx: &Context, wait: Wait) -> io::Result<bool> {
        self.polling.adopt_params(&self.shared, &self.pacing);
        match (wait, self.polling.controller.is_enabled()) {
            (Wait::NoBlock, _) => self.iterate::<false, false>(cx, wait),
            (_, false) => self.iterate::<true, false>(cx, wait),
            (_, true) => self.iterate::<true, true>(cx, wait),
        }
    }

    /// Returns the time at which a poll with this `wait` ends.
    #[inline]
    fn deadline(&self, wait: Wait) -> Option<Moment> {
        match wait {
            Wait::AtMost(limit) => Some(self.now().saturating_add(limit)),
            Wait::Until(at) => Some(at),
            Wait::Block | Wait::NoBlock => None,
        }
    }

    #[inline]
    fn interrupted_since(&self, before: BeforePoll) -> Interrupted {
        self.nesting.interrupted_since(before, &self.mailbox)
    }

    /// Returns the wait of the next iteration after one without progress; `None`: the poll returns.
    #[cold]
    fn go_on(&self, deadline: Option<Moment>, standstill: &mut Standstill) -> Option<Wait> {
        if self.polling.set.is_calling() || (self.timers.is_simulated() && standstill.lasts(self.now())) {
            return None;
        }
        let Some(deadline) = deadline else {
            return Some(Wait::Block);
        };
        let left = deadline.since(self.now());
        (!left.is_zero()).then_some(Wait::AtMost(left))
    }
}
