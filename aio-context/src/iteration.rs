//! One iteration: the order in which a context does things (rule D5).
//!
//! [`iterate`](Inner::iterate) is the page to read; what follows are its steps. It holds no borrow while a callback runs.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use aio_backend::{Readiness, ReadyList, Token};
use aio_handlers::Noted;

use crate::Context;
use crate::context::{Inner, Wait};
use crate::glance;
use crate::handler::Kind;
use crate::hot::Busy;
use crate::polling::Polled;

/// An idle bottom half lets the loop sleep, but no longer than this (rule H8).
const IDLE_NAP: Duration = Duration::from_millis(10);
/// The backend is asked to change its ways after a registration, and every so many waits.
pub(crate) const REBALANCE_EVERY: u32 = 128;

impl Inner {
    /// Does one iteration; true if there was progress.
    #[inline]
    pub(crate) fn iterate(&self, cx: &Context, wait: Wait) -> io::Result<bool> {
        let _depth = Depth::enter(&self.depth);
        self.shared.counters.iteration();
        self.adopt_poll_params();
        let mut found = Found {
            inner: self,
            list: ReadyList::with_limit(self.batch),
            next: 0,
        };

        let deciding = self.shared.home.decide();
        self.recall_edges(&mut found.list);
        let timeout = self.timeout(wait);
        // 1. look for work in user space
        let polled = self.try_polling(cx, timeout, &mut found.list)?;
        // 2. wait, or look at the descriptors once
        let blocked = if polled.hit {
            false
        } else if timeout == Some(Duration::ZERO) {
            self.look_without_waiting(cx, wait, &mut found.list)?;
            false
        } else {
            self.looks.is_kept_again(false);
            self.look_or_wait(cx, timeout, polled, &mut found.list)?
        };
        drop(deciding);
        // 3. accept the notification: from here on a new one makes the next iteration run
        if self.shared.notifier.is_notified() {
            self.shared.notifier.accept();
        }
        // 4. see how long there was nothing to do
        let seen = self.measure(timeout, polled, blocked, &found.list);
        // 5. bottom halves
        let mut progress = self.bottom_halves.run(cx, &self.shared);
        // 6. ready handlers (7. a removed one was dropped when its last user was done)
        progress |= self.dispatch(cx, &mut found);
        if let Some(seen) = seen {
            self.adapt(seen, &found.list);
        }
        // 8. timers
        progress |= self.timers.run(cx);
        self.glance.served(progress);
        if self.deaf.take() {
            // Reported by every wait from now on: whoever calls has to know, or it would spin.
            return Err(rustix::io::Errno::BADF.into());
        }
        Ok(progress)
    }

    /// How long this iteration may wait (rule T1); `None`: for ever.
    pub(crate) fn timeout(&self, wait: Wait) -> Option<Duration> {
        let asked = match wait {
            Wait::NoBlock => return Some(Duration::ZERO),
            Wait::AtMost(limit) => Some(limit),
            Wait::Block => None,
        };
        if self.has_bottom_halves() || self.edges.are_waiting() {
            return Some(Duration::ZERO);
        }
        let nap = self.shared.inbox.pending().then_some(IDLE_NAP);
        [asked, nap, self.timers.time_left()].into_iter().flatten().min()
    }

    /// Whether a bottom half is to run that is in a hurry.
    #[inline]
    fn has_bottom_halves(&self) -> bool {
        self.bottom_halves.is_waiting() || self.shared.inbox.has_normal()
    }

    /// An iteration that may not wait looks at the descriptors. When it is bottom halves that keep one after the other from
    /// waiting, the first one looks, and then whoever finds that a look is due (rule D8). On a simulated clock all do: no
    /// time passes there.
    #[inline]
    fn look_without_waiting(&self, cx: &Context, wait: Wait, ready: &mut ReadyList) -> io::Result<()> {
        let is_kept = wait != Wait::NoBlock && !self.simulated && self.has_bottom_halves();
        if self.looks.is_kept_again(is_kept) {
            self.look_after_hit(cx, ready)
        } else {
            self.look(cx, ready)
        }
    }

    fn try_polling(
        &self,
        cx: &Context,
        timeout: Option<Duration>,
        ready: &mut ReadyList,
    ) -> io::Result<Polled> {
        if !self.polling_enabled.get() || timeout == Some(Duration::ZERO) {
            let hit = self.hot.must_ask() && self.ask_unkicked(cx, ready)?;
            if hit && timeout != Some(Duration::ZERO) {
                self.look(cx, ready)?;
                return Ok(Polled {
                    hit,
                    ..Polled::default()
                });
            }
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

    /// Waits for what is left of the timeout (rule A4). True if it really waited.
    fn look_or_wait(
        &self,
        cx: &Context,
        timeout: Option<Duration>,
        polled: Polled,
        ready: &mut ReadyList,
    ) -> io::Result<bool> {
        let left = timeout.map(|timeout| timeout.saturating_sub(polled.spun));
        if left == Some(Duration::ZERO) {
            self.look(cx, ready)?;
            return Ok(false);
        }
        let hit = self.hot.must_ask() && self.leave_poll_mode(cx, ready);
        if hit {
            self.look(cx, ready)?;
            return Ok(false);
        }
        let Some(left) = self.glance(cx, left, ready)? else {
            return Ok(false);
        };
        if !self.shared.notifier.prepare_to_wait() {
            self.look(cx, ready)?;
            return Ok(false);
        }
        let waiting = Waiting(self);
        let first = ready.len();
        let waited = self.wait_for(left, ready);
        drop(waiting);
        self.collect(cx, first, ready);
        waited.map(|()| true)
    }

    /// Looks a few times more before a wait, if that has paid lately. What is left of the timeout; `None`: something was
    /// found, do not wait.
    fn glance(
        &self,
        cx: &Context,
        timeout: Option<Duration>,
        ready: &mut ReadyList,
    ) -> io::Result<Option<Option<Duration>>> {
        let bound = timeout.map_or(glance::LONGEST, |timeout| timeout.min(glance::LONGEST));
        if self.simulated || !self.glance.is_worth_it() {
            return Ok(Some(timeout));
        }
        self.look(cx, ready)?;
        let mut found = self.is_found(ready);
        let (mut began, mut passed) = (None, Duration::ZERO);
        while !found && passed < bound {
            let now = self.now();
            passed = now.since(*began.get_or_insert(now));
            self.look(cx, ready)?;
            found = self.is_found(ready);
        }
        self.glance.found(found);
        Ok((!found).then(|| timeout.map(|timeout| timeout.saturating_sub(passed))))
    }

    pub(crate) fn is_found(&self, ready: &ReadyList) -> bool {
        !ready.is_empty() || self.shared.notifier.is_notified()
    }

    /// Waits until something is ready, somebody notifies or `timeout` is over; interruptions do not count (rule D4).
    fn wait_for(&self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let deadline = timeout.map(|timeout| self.now().saturating_add(timeout));
        let mut left = timeout;
        loop {
            let before = ready.len();
            self.rebalance();
            if left.is_some() && self.simulated {
                self.backend.borrow_mut().wait(Some(Duration::ZERO), ready)?;
                if ready.len() == before && !self.shared.notifier.is_notified() {
                    self.timers
                        .clock(crate::ClockId::Monotonic)
                        .pass(left.unwrap_or_default());
                }
                return Ok(());
            }
            self.backend.borrow_mut().wait(left, ready)?;
            if ready.len() > before || self.shared.notifier.is_notified() {
                return Ok(());
            }
            if let Some(deadline) = deadline {
                left = Some(deadline.since(self.now()));
                if left == Some(Duration::ZERO) {
                    return Ok(());
                }
            }
        }
    }

    /// Looks at the descriptors without waiting.
    #[inline(always)]
    pub(crate) fn look(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<()> {
        self.looks.looked(ready.is_full());
        self.rebalance();
        let first = ready.len();
        self.backend.borrow_mut().wait(Some(Duration::ZERO), ready)?;
        self.collect(cx, first, ready);
        Ok(())
    }

    /// Lets the backend change its ways, unless a wait of an outer iteration is still to be dispatched (rule B3).
    #[inline]
    fn rebalance(&self) {
        let looks = self.looks_since_rebalance.get() + 1;
        self.looks_since_rebalance.set(looks);
        if looks >= REBALANCE_EVERY && self.depth.get() <= 1 {
            self.looks_since_rebalance.set(0);
            self.backend.borrow_mut().rebalance();
        }
    }

    /// Puts what a wait found into the handlers' slots, from where it is taken once, by whoever comes first (rule D1).
    #[inline]
    fn collect(&self, cx: &Context, first: usize, ready: &ReadyList) {
        if ready.len() > first {
            self.collect_from(cx, first, ready);
        }
    }

    fn collect_from(&self, cx: &Context, first: usize, ready: &ReadyList) {
        for (token, readiness) in ready.iter().skip(first) {
            if token == self.doorbell {
                if readiness.contains(Readiness::NVAL) {
                    self.deaf.set(true);
                }
                continue;
            }
            if readiness.contains(Readiness::NVAL) {
                let why = io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the descriptor was closed while it was registered; remove the registration before closing",
                );
                self.give_up(cx, token, why);
                continue;
            }
            let noted = self.note(token, readiness);
            match noted {
                Noted::Live => {}
                Noted::Parked => self.park(token),
                Noted::Stale => self.stale.set(self.stale.get() + 1),
            }
        }
    }

    /// Calls the handlers of what was found, in that order; true if one was called.
    pub(crate) fn dispatch(&self, cx: &Context, found: &mut Found<'_>) -> bool {
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

    fn call_polled(&self, cx: &Context, token: Token) -> bool {
        let (hit, nests) = match self.registry.borrow_mut().get_mut(token) {
            Some(entry) => (std::mem::take(&mut entry.hit), entry.is_board),
            None => return false,
        };
        let Some(handler) = self.polled_handler(token).filter(|_| hit) else {
            return false;
        };
        self.hot.answered(token);
        let _exclusive = self.hold(cx, token, handler.exclusive());
        let _busy = (!nests).then(|| Busy::new(&self.hot, token));
        cx.call(|cx| handler.poll_ready(cx));
        true
    }

    fn call_ready(&self, cx: &Context, token: Token) -> bool {
        let mut registry = self.registry.borrow_mut();
        let Some((entry, readiness, interest)) = registry.take_ready(token) else {
            drop(registry);
            self.turned_away(token);
            return false;
        };
        let (kind, exclusive) = (entry.kind.clone(), entry.exclusive);
        drop(registry);
        let _exclusive = self.hold(cx, token, exclusive);
        let _busy = kind.polled().map(|_| {
            self.warm_up(token);
            Busy::new(&self.hot, token)
        });
        let _insured = self.insure_edge(token, readiness, interest);
        if readiness.wakes_reader(interest) {
            cx.call(|cx| kind.handler().readable(cx));
        }
        if readiness.wakes_writer(interest) {
            if self.still_concerns(token, &kind, readiness) {
                cx.call(|cx| kind.handler().writable(cx));
            } else {
                self.turned_away(token);
            }
        }
        true
    }

    /// Whether `writable` may still be called after `readable` has run (rules R9, D3).
    fn still_concerns(&self, token: Token, kind: &Kind, readiness: Readiness) -> bool {
        let registry = self.registry.borrow();
        let same = registry.get(token).is_some_and(|entry| entry.kind.is(kind));
        let wanted = registry
            .interest(token)
            .is_some_and(|interest| readiness.wakes_writer(interest));
        same && wanted
            && !registry
                .group(token)
                .is_some_and(|group| registry.is_paused(group))
    }

    /// Keeps an exclusive handler from being entered again until the guard is dropped.
    fn hold<'a>(&'a self, cx: &'a Context, token: Token, exclusive: bool) -> Option<Held<'a>> {
        let held = exclusive && self.registry.borrow_mut().hold(token);
        held.then(|| Held { cx, token })
    }
}

/// What one iteration found; whatever is not dispatched when it ends, also by a panic, is found again by the next.
pub(crate) struct Found<'a> {
    inner: &'a Inner,
    pub(crate) list: ReadyList,
    next: usize,
}

impl<'a> Found<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self {
            inner,
            list: ReadyList::with_limit(inner.batch),
            next: 0,
        }
    }

    fn next(&mut self) -> Option<(Token, Readiness)> {
        let found = self.list.iter().nth(self.next)?;
        self.next += 1;
        Some(found)
    }

    /// Gives back what has not been dispatched.
    pub(crate) fn forget(&mut self) {
        while let Some((token, _)) = self.next() {
            let is_edge = self.inner.asks_for_edges(token);
            let mut registry = self.inner.registry.borrow_mut();
            if !is_edge {
                registry.forget_ready(token);
            }
            if let Some(entry) = registry.get_mut(token) {
                entry.hit = false;
            }
        }
        self.list.clear();
        self.next = 0;
    }
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        if self.next < self.list.len() {
            self.forget();
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

/// The notify flag is up; lowers it, also if the backend panics.
struct Waiting<'a>(&'a Inner);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.shared.notifier.finish_wait();
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
        let rearm = inner.registry.borrow_mut().release(self.token);
        if let Some(interest) = rearm {
            inner.rearm(self.cx, self.token, interest);
        }
    }
}
