//! [`Context::poll`]: iterations until there is progress, and what else ends a poll that may wait (rule D4).

use std::io;

use aio_backend::Refused;
use aio_notify::Interrupted;
use aio_timers::Moment;

use crate::Context;
use crate::context::{Inner, Wait};

impl Context {
    /// Does one iteration, or, if it may wait, iterations until there is progress; true if there was: a handler or a bottom half ran, a timer fired, or a handler was
    /// [invalidated](crate::Handler::invalidated). Idle bottom halves are no progress.
    ///
    /// Callbacks run inside this call. Any of them may call `poll` again. If one panics, the panic comes out here, and
    /// the context can go on: what had been found and not been called is found again.
    ///
    /// Progress of a poll inside a callback is progress of this one, too.
    ///
    /// A call that may wait goes on, iteration after iteration, until there is progress. It returns false only if a thread
    /// [notified](crate::Remote::notify) without giving it work, if its time is over, or in a callback of
    /// [`Pollable`](crate::Pollable) that is no place to wait. On a simulated clock it also ends when time stands still for 100 iterations.
    ///
    /// # Errors
    /// What the system says to waiting; interruptions by signals are no errors. `EBADF`, after doing what there was to do, if
    /// the context's own eventfd was closed behind its back: then no thread can wake it any more.
    #[doc(alias = "aio_poll")]
    #[inline]
    pub fn poll(&self, wait: Wait) -> io::Result<bool> {
        let inner = &self.0;
        inner.polling.adopt_params(&inner.shared, &inner.pacing);
        match (wait, inner.polling.is_enabled()) {
            (Wait::NoBlock, _) => self.poll_without_wait(),
            (_, false) => self.poll_waiting(wait),
            (_, true) => self.poll_polling(wait),
        }
    }

    /// Does not touch the stack, so that the choice costs little.
    #[inline(never)]
    fn poll_waiting(&self, wait: Wait) -> io::Result<bool> {
        let inner = &self.0;
        let may_find = inner.has_descriptors_only() && inner.pacing.pre_sleep.get().is_promising();
        // The wait itself passes operations to the system: see `plan_to_wait`.
        if may_find && inner.skips_spin.get() == 0 {
            self.check_and_wait(wait)
        } else {
            self.iterate_waiting(wait)
        }
    }

    #[inline(never)]
    fn check_and_wait(&self, wait: Wait) -> io::Result<bool> {
        self.or_iterate(wait, self.0.check_only::<true>(self), Self::iterate_waiting)
    }

    #[inline(never)]
    fn iterate_waiting(&self, wait: Wait) -> io::Result<bool> {
        self.poll_as::<false>(wait)
    }

    /// As [`poll_waiting`](Self::poll_waiting).
    #[inline(never)]
    fn poll_polling(&self, wait: Wait) -> io::Result<bool> {
        if wait == Wait::Block && self.0.has_to_poll_first() {
            self.poll_first_and_wait(wait)
        } else {
            self.iterate_polling(wait)
        }
    }

    #[inline(never)]
    fn poll_first_and_wait(&self, wait: Wait) -> io::Result<bool> {
        self.or_iterate(wait, self.0.poll_first(self), Self::iterate_polling)
    }

    #[inline(never)]
    fn iterate_polling(&self, wait: Wait) -> io::Result<bool> {
        self.poll_as::<true>(wait)
    }

    /// Ends a poll with what the `first` iteration did, which did not wait, or goes on with `iterate`.
    #[inline(always)]
    fn or_iterate(
        &self,
        wait: Wait,
        first: io::Result<Option<(bool, Before)>>,
        iterate: fn(&Self, Wait) -> io::Result<bool>,
    ) -> io::Result<bool> {
        match first {
            Ok(Some((progress, before))) => {
                if self.0.is_progress(progress, before) {
                    return Ok(true);
                }
                self.poll_after(self.0.deadline(wait), before)
            }
            Ok(None) => iterate(self, wait),
            Err(why) => Err(self.cannot_wait(why)),
        }
    }

    // A function for each kind of iteration: one for all would have fewer registers for each.
    /// As [`poll_waiting`](Self::poll_waiting).
    #[inline(never)]
    fn poll_without_wait(&self) -> io::Result<bool> {
        if self.0.has_descriptors_only() {
            self.check_without_wait()
        } else {
            self.iterate_without_wait()
        }
    }

    #[inline(never)]
    fn check_without_wait(&self) -> io::Result<bool> {
        match self.0.check_only::<false>(self) {
            Ok(None) => Ok(false),
            Ok(Some((progress, before))) => Ok(self.has_served(progress, before)),
            Err(why) => Err(self.cannot_wait(why)),
        }
    }

    #[inline(never)]
    fn iterate_without_wait(&self) -> io::Result<bool> {
        let before = self.0.before();
        let progress = self.0.iterate::<false, false>(self, Wait::NoBlock);
        let progress = progress.map_err(|why| self.cannot_wait(why))?;
        Ok(self.has_served(progress, before))
    }

    /// After an iteration that may not wait.
    #[inline(always)]
    fn has_served(&self, progress: bool, before: Before) -> bool {
        let progress = self.0.is_progress(progress, before);
        if !progress {
            self.0.interrupted_since(before.interrupts);
        }
        progress
    }

    #[inline(always)]
    fn poll_as<const POLLS: bool>(&self, wait: Wait) -> io::Result<bool> {
        let before = self.0.before();
        let deadline = self.0.deadline(wait);
        let progress = self.0.iterate::<true, POLLS>(self, wait);
        let progress = progress.map_err(|why| self.cannot_wait(why))?;
        if self.0.is_progress(progress, before) {
            return Ok(true);
        }
        self.poll_after(deadline, before)
    }

    /// After an iteration without progress.
    #[inline]
    fn poll_after(&self, deadline: Option<Moment>, before: Before) -> io::Result<bool> {
        match self.0.interrupted_since(before.interrupts) {
            Interrupted::Served => Ok(false),
            interrupted => self.poll_on(deadline, before, interrupted),
        }
    }

    #[cold]
    fn cannot_wait(&self, why: io::Error) -> io::Error {
        Refused::wrap("wait", self.backend_name(), why)
    }

    /// Goes on after an iteration without progress. Apart, so that what most polls do is compiled into [`poll`](Self::poll) once.
    #[inline(never)]
    fn poll_on(
        &self,
        deadline: Option<Moment>,
        before: Before,
        mut interrupted: Interrupted,
    ) -> io::Result<bool> {
        let mut stuck = Stuck::default();
        loop {
            let (next, is_last) = match interrupted {
                Interrupted::Served => return Ok(false),
                Interrupted::Unserved => (Wait::NoBlock, true),
                Interrupted::No => match self.0.go_on(deadline, &mut stuck) {
                    Some(again) => (again, false),
                    None => return Ok(false),
                },
            };
            let progress = self.0.iterate_apart(self, next);
            let progress = progress.map_err(|why| self.cannot_wait(why))?;
            if self.0.is_progress(progress, before) {
                return Ok(true);
            }
            interrupted = self.0.interrupted_since(before.interrupts);
            if is_last {
                return Ok(false);
            }
        }
    }
}

/// The state of a context when a poll began.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    /// How many nested polls had made progress.
    nested: u64,
    /// How many interrupts had been seen.
    interrupts: u64,
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
    /// One more iteration.
    #[inline(never)]
    fn iterate_apart(&self, cx: &Context, wait: Wait) -> io::Result<bool> {
        self.polling.adopt_params(&self.shared, &self.pacing);
        match (wait, self.polling.is_enabled()) {
            (Wait::NoBlock, _) => self.iterate::<false, false>(cx, wait),
            (_, false) => self.iterate::<true, false>(cx, wait),
            (_, true) => self.iterate::<true, true>(cx, wait),
        }
    }

    /// When a poll ends that may wait like this.
    #[inline]
    fn deadline(&self, wait: Wait) -> Option<Moment> {
        match wait {
            Wait::AtMost(limit) => Some(self.now().saturating_add(limit)),
            Wait::Until(at) => Some(at),
            Wait::Block | Wait::NoBlock => None,
        }
    }

    #[inline]
    pub(crate) fn before(&self) -> Before {
        Before {
            nested: self.nesting.progress.get(),
            interrupts: self.nesting.interrupts_seen.get(),
        }
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

    /// Whether a thread has interrupted the wait since the number of interrupts was `before`.
    #[inline]
    fn interrupted_since(&self, before: u64) -> Interrupted {
        self.mailbox
            .interrupted_since(before, &self.nesting.interrupts_seen)
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
