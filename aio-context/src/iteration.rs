//! One iteration: the order in which a context does things (rule D5).
//!
//! [`iterate`](Inner::iterate) is the page to read; what follows are its steps. It holds no borrow while a callback runs.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Interest, Readiness, ReadyList, Token};
use aio_handlers::Recorded;

use crate::Context;
use crate::Handler;
use crate::bottom_half;
use crate::context::{Inner, Wait};
use crate::error::closed_while_registered;
use crate::found::Found;
use crate::polling::Polled;
use crate::waiting::Plan;
use crate::wall::is_own;

/// An idle bottom half lets the loop sleep, but no longer than this (rule H8).
const IDLE_NAP: Duration = Duration::from_millis(10);

impl Inner {
    /// Does one iteration; true if there was progress.
    #[inline]
    pub(crate) fn iterate(&self, cx: &Context, wait: Wait) -> io::Result<bool> {
        self.adopt_poll_params();
        // Compiled twice: without polling most of it is not there.
        if self.polling_enabled.get() {
            self.iterate_as::<true>(cx, wait)
        } else {
            self.iterate_as::<false>(cx, wait)
        }
    }

    #[inline(always)]
    fn iterate_as<const POLLS: bool>(&self, cx: &Context, wait: Wait) -> io::Result<bool> {
        let _depth = Depth::enter(&self.depth);
        self.shared.counters.iteration();
        let mut list = self.lists.take(self.batch);
        let found = Found::new(self, &mut list);
        let planning = self.mailbox.plan_guard();
        let invalidated = self.invalidated.get();
        self.registry.borrow_mut().recall(found.list);
        let timeout = self.timeout(wait);
        // 1. look for work in user space
        let polled = if POLLS {
            self.try_polling(cx, timeout, found.list)?
        } else {
            Polled::default()
        };
        // 2. wait, or look at the descriptors once
        let plan = if polled.hit {
            Plan::Skip
        } else if timeout == Some(Duration::ZERO) {
            self.plan_not_to_wait(cx, wait, found.list)?
        } else {
            self.pacing.checks.step(|checks| checks.prevents_again(false));
            self.plan_to_wait(cx, timeout, polled, found.list)?
        };
        let blocked = self.carry_out(cx, plan, found.list)?;
        drop(planning);
        // 3. accept the notification: from here on a new one makes the next iteration run
        if self.mailbox.is_notified() {
            self.mailbox.accept();
        }
        // 4. see how long there was nothing to do
        let seen = if POLLS {
            self.measure(timeout, polled, blocked, found.list)
        } else {
            None
        };
        // 5. bottom halves
        let mut progress = self.invalidated.get() != invalidated;
        progress |= bottom_half::run(&self.deferred, &self.mailbox, cx);
        // 6. ready handlers (7. a removed one was dropped when its last user was done)
        if !found.list.is_empty() {
            progress |= self.dispatch(cx, found);
        } else {
            drop(found);
        }
        if let Some(seen) = seen {
            self.adapt(seen, &list);
        }
        self.lists.give_back(list);
        // 8. timers
        progress |= self.timers.run(cx);
        self.pacing.spin.step(|spin| spin.served(progress));
        if self.deaf.take() {
            // Reported by every wait from now on: whoever calls has to know, or it would spin.
            return Err(rustix::io::Errno::BADF.into());
        }
        Ok(progress)
    }

    /// How long this iteration may wait (rule T1); `None`: for ever. Inside a walk over the polled handlers it may not wait at
    /// all: they cannot be told now that the loop sleeps.
    #[inline(always)]
    pub(crate) fn timeout(&self, wait: Wait) -> Option<Duration> {
        if self.polled.is_calling() {
            return Some(Duration::ZERO);
        }
        let asked = match wait {
            Wait::NoBlock => return Some(Duration::ZERO),
            Wait::AtMost(limit) => Some(limit),
            Wait::Block => None,
        };
        if self.has_bottom_halves() || self.registry.borrow().has_edges() {
            return Some(Duration::ZERO);
        }
        let nap = self.mailbox.inbox().pending().then_some(IDLE_NAP);
        [asked, nap, self.timers.time_left(&self.backend)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether a bottom half is to run that is in a hurry.
    #[inline]
    pub(crate) fn has_bottom_halves(&self) -> bool {
        self.deferred.has_urgent(self.mailbox.inbox())
    }

    #[inline]
    fn try_polling(
        &self,
        cx: &Context,
        timeout: Option<Duration>,
        ready: &mut ReadyList,
    ) -> io::Result<Polled> {
        if timeout == Some(Duration::ZERO) {
            return Ok(Polled::default());
        }
        let budget = self
            .policy
            .borrow()
            .budget_until(timeout)
            .min(self.poll_max.get());
        let budget = timeout.map_or(budget, |timeout| budget.min(timeout));
        if budget.is_zero() {
            return Ok(Polled {
                ended: Some(self.now()),
                ..Polled::default()
            });
        }
        self.search(cx, budget, ready)
    }

    /// Puts what a wait found into the handlers' slots, from where it is taken once, by whoever comes first (rule D1).
    #[inline]
    pub(crate) fn collect(&self, cx: &Context, first: usize, ready: &ReadyList) {
        if ready.len() > first {
            self.collect_from(cx, first, ready);
        }
    }

    #[inline(never)]
    fn collect_from(&self, cx: &Context, mut first: usize, ready: &ReadyList) {
        // Most events need no more than to be recorded. That is done for all in a row, with one borrow.
        let mut registry = self.registry.borrow_mut();
        while let Some((token, readiness)) = ready.get(first) {
            let is_simple = !is_own(token) && !readiness.contains(Readiness::NVAL);
            if !is_simple || registry.record(token, readiness) != Recorded::Live {
                break;
            }
            first += 1;
        }
        drop(registry);
        for (token, readiness) in ready.iter().skip(first) {
            if is_own(token) {
                self.accept_own(token, readiness);
                continue;
            }
            if readiness.contains(Readiness::NVAL) {
                self.give_up(cx, token, closed_while_registered());
                self.invalidated.set(self.invalidated.get() + 1);
                continue;
            }
            let recorded = self.registry.borrow_mut().record(token, readiness);
            match recorded {
                Recorded::Live => {}
                Recorded::Masked => self.park(token),
                Recorded::Stale => self.stale.set(self.stale.get() + 1),
            }
        }
    }

    /// Takes note of an event of one of the loop's own descriptors.
    #[cold]
    fn accept_own(&self, token: Token, readiness: Readiness) {
        if token != self.doorbell {
            self.timers.wall_changed(readiness, &self.backend);
        } else if readiness.contains(Readiness::NVAL) {
            self.deaf.set(true);
        }
    }

    /// Calls the handlers of what was found, in that order; true if one was called.
    ///
    /// Part of the iteration, and what is done for each event as well: because of what returns cost after a system call (see
    /// `any_backend.rs`).
    #[inline(always)]
    pub(crate) fn dispatch(&self, cx: &Context, mut found: Found<'_>) -> bool {
        let mut progress = false;
        while let Some((token, readiness)) = found.next() {
            progress |= if readiness.is_empty() {
                self.call_polled(cx, token)
            } else {
                self.call_ready(cx, token)
            };
        }
        progress
    }

    #[inline(never)]
    fn call_polled(&self, cx: &Context, token: Token) -> bool {
        let Some(handler) = self.pollable(token) else {
            return false;
        };
        let _exclusive = self.hold(cx, token, handler.exclusive());
        let served = self.polled.serve(token, || cx.call(|cx| handler.poll_ready(cx)));
        served.is_some()
    }

    #[inline(always)]
    fn call_ready(&self, cx: &Context, token: Token) -> bool {
        let mut registry = self.registry.borrow_mut();
        let Some((entry, readiness, interest)) = registry.take_ready(token) else {
            drop(registry);
            self.reject(token);
            return false;
        };
        let (handler, is_special) = (entry.handler.clone(), entry.is_special);
        drop(registry);
        if is_special || interest.contains(Interest::EDGE) {
            self.call_special(cx, token, &handler, readiness, interest);
        } else {
            self.call_for(cx, token, &handler, readiness, interest);
        }
        true
    }

    /// A handler that is polled, may not be entered twice, or waits for edges.
    #[inline(never)]
    fn call_special(
        &self,
        cx: &Context,
        token: Token,
        handler: &Rc<dyn Handler>,
        readiness: Readiness,
        interest: Interest,
    ) {
        let _exclusive = self.hold(cx, token, handler.exclusive());
        let _excluded = self.polled.promote(token).then(|| self.polled.exclude(token));
        let _guard = EdgeGuard::new(self, token, readiness, interest);
        self.call_for(cx, token, handler, readiness, interest);
    }

    #[inline(always)]
    fn call_for(
        &self,
        cx: &Context,
        token: Token,
        handler: &Rc<dyn Handler>,
        readiness: Readiness,
        interest: Interest,
    ) {
        if readiness.wakes_reader(interest) {
            cx.call(|cx| handler.readable(cx));
        }
        if readiness.wakes_writer(interest) {
            if self.still_concerns(token, handler, readiness) {
                cx.call(|cx| handler.writable(cx));
            } else {
                self.reject(token);
            }
        }
    }

    /// Whether `writable` may still be called after `readable` has run (rules R9, D3).
    #[inline(never)]
    fn still_concerns(&self, token: Token, handler: &Rc<dyn Handler>, readiness: Readiness) -> bool {
        let registry = self.registry.borrow();
        let same = registry.get(token).is_some_and(|entry| entry.is(handler));
        let wanted = registry
            .interest(token)
            .is_some_and(|interest| readiness.wakes_writer(interest));
        same && wanted
            && !registry
                .group(token)
                .is_some_and(|group| registry.is_paused(group))
    }

    /// Rejects an event whose handler was paused or excluded since: an edge is silenced until the pause ends.
    #[cold]
    pub(crate) fn reject(&self, token: Token) {
        let masks = self.registry.borrow_mut().reject(token);
        if masks {
            self.park(token);
        }
    }

    /// Keeps an exclusive handler from being entered again until the guard is dropped.
    fn hold<'a>(&'a self, cx: &'a Context, token: Token, exclusive: bool) -> Option<Held<'a>> {
        let held = exclusive && self.registry.borrow_mut().exclude(token);
        held.then(|| Held { cx, token })
    }
}

/// Restores an edge if the callback for it panics: no backend reports it anew.
struct EdgeGuard<'a> {
    inner: &'a Inner,
    token: Token,
    readiness: Readiness,
}

impl<'a> EdgeGuard<'a> {
    fn new(inner: &'a Inner, token: Token, readiness: Readiness, interest: Interest) -> Option<Self> {
        interest.contains(Interest::EDGE).then_some(Self {
            inner,
            token,
            readiness,
        })
    }
}

impl Drop for EdgeGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let recorded = self
                .inner
                .registry
                .borrow_mut()
                .restore(self.token, self.readiness);
            if recorded == Recorded::Masked {
                self.inner.park(self.token);
            }
        }
    }
}

/// Counts how deep polls are nested; right also when a callback panics.
struct Depth<'a>(&'a Cell<u32>);

impl<'a> Depth<'a> {
    fn enter(depth: &'a Cell<u32>) -> Self {
        depth.set(depth.get() + 1);
        Self(depth)
    }
}

impl Drop for Depth<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// An exclusive handler is running.
struct Held<'a> {
    cx: &'a Context,
    token: Token,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let inner = &self.cx.0;
        let rearm = inner.registry.borrow_mut().readmit(self.token);
        if let Some(interest) = rearm {
            inner.rearm(self.cx, self.token, interest);
        }
    }
}
