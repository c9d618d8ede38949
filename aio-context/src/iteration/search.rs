//! Busy polling: the steps of a search for work, poll mode, and demoting idle handlers.
//!
//! A search never waits. The policy decides how long it polls, and [`Pacing`](aio_pollctl::Pacing) when it
//! checks the descriptors meanwhile (rules R10, D8).

use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Interest, Readiness, ReadyList, Token};
use aio_notify::{thread_cpu_time, thread_run_delay};
use aio_pollctl::{CheckPacer, IdleCosts, Search, Searched};
use aio_timers::{Clock, Moment};

use crate::clock_id::ClockId;
use crate::handler::Join;
use crate::{Context, context::Inner};

/// The state of a search, and of the preparation of a wait. It appends events to a list; hits of polled
/// handlers have an empty readiness.
pub(crate) struct Searching<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) cx: &'a Context,
    clock: &'a dyn Clock,
    pub(crate) ready: &'a mut ReadyList,
}

impl Search for Searching<'_> {
    type Error = io::Error;

    #[inline]
    fn now_ns(&self) -> u64 {
        self.clock.now().as_nanos()
    }

    fn cpu_time(&self) -> Duration {
        thread_cpu_time()
    }

    fn run_delay(&self) -> Option<Duration> {
        thread_run_delay()
    }

    #[inline]
    fn is_in_poll_mode(&self) -> bool {
        self.inner.polling.set.is_on()
    }

    #[inline]
    fn enter_poll_mode(&mut self) {
        self.inner.enter_poll_mode(self.cx);
    }

    #[inline]
    fn round(&mut self) -> bool {
        self.inner.round(self.cx, self.ready)
    }

    #[inline]
    fn rounds(&self) -> u32 {
        self.inner.polling.set.rounds()
    }

    #[inline]
    fn is_notified(&self) -> bool {
        self.inner.mailbox.is_notified()
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.ready.is_full()
    }

    fn check(&mut self) -> io::Result<bool> {
        let before = self.ready.len();
        self.inner.check_unpaced(self.cx, self.ready)?;
        Ok(self.ready.len() > before)
    }

    #[inline]
    fn can_peek(&self) -> bool {
        self.inner.descriptors.backend.can_peek()
    }

    #[inline(never)]
    fn peek(&mut self) -> io::Result<bool> {
        let first = self.ready.len();
        self.peek_and_wait()?;
        let is_found = self.ready.len() > first;
        if is_found {
            self.inner.record_from(self.cx, first, self.ready);
        }
        Ok(is_found)
    }

    #[inline(never)]
    fn peek_beside_hits(&mut self) -> io::Result<bool> {
        let first = self.ready.len();
        let has_waited = self.peek_and_wait()?;
        let is_found = (has_waited || self.ready.len() > first)
            && self.inner.record_unless_hit(self.cx, first, self.ready);
        if is_found {
            self.inner.pacing.checks.step(CheckPacer::peek_found);
        }
        Ok(has_waited && !is_found)
    }

    #[cold]
    fn demote_idle(&mut self, costs: &IdleCosts) -> bool {
        let before = self.ready.len();
        self.inner.demote_idle(self.cx, costs, self.ready);
        self.ready.len() > before
    }

    fn pass(&mut self, left: Duration) -> bool {
        self.clock.pass(left)
    }

    #[cold]
    fn suspended(&mut self) {
        self.inner.shared.counters.suspension();
        tracing::debug!(
            "polling is suspended for a while: other threads run on this core, or a quota is used up"
        );
    }
}

impl Searching<'_> {
    /// Checks the descriptors, with a wait of zero length if the backend cannot peek. Returns `true` if it
    /// used such a wait.
    #[inline]
    fn peek_and_wait(&mut self) -> io::Result<bool> {
        let backend = &self.inner.descriptors.backend;
        let waits = backend.peek(self.ready)?;
        if waits {
            self.inner.rebalance();
            backend.wait(Some(Duration::ZERO), self.ready)?;
        }
        Ok(waits)
    }
}

impl Inner {
    /// Returns the search state; it appends events and hits to `ready`.
    #[inline]
    pub(crate) fn searching<'a>(&'a self, cx: &'a Context, ready: &'a mut ReadyList) -> Searching<'a> {
        Searching {
            inner: self,
            cx,
            clock: self.timers.clock(ClockId::Monotonic),
            ready,
        }
    }

    /// Searches for work for up to `budget`, at most `timeout` (rules A2, A3, R10).
    #[inline(never)]
    pub(crate) fn search(
        &self,
        cx: &Context,
        budget: Duration,
        timeout: Option<Duration>,
        ready: &mut ReadyList,
    ) -> io::Result<Searched> {
        let searching = &mut self.searching(cx, ready);
        let searched = self.pacing.search(searching, budget, timeout)?;
        if searched.hit && searched.ended_ns.is_none() {
            self.shared.counters.hit();
            self.pacing.after_hit(searching)?;
        } else {
            self.shared.counters.searched(searched.hit, searched.spun);
        }
        Ok(searched)
    }

    /// Prepares an iteration that may not wait, because no peer kicks in poll mode (rule D8). It polls every
    /// handler once or, if polling was switched off meanwhile, leaves poll mode. A check of the descriptors
    /// follows. Returns `true` if a handler has work.
    #[cold]
    pub(crate) fn poll_unkicked(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<bool> {
        if self.pacing.checks.get().is_pending() {
            self.check(cx, ready)?;
        }
        if self.polling.set.is_calling() {
            // This call is nested in a poll of a handler, or in entering or leaving poll mode, which
            // continues afterwards.
            Ok(false)
        } else if self.polling.set.is_on() && self.polling.controller.is_enabled() {
            self.enter_poll_mode(cx);
            Ok(self.round(cx, ready))
        } else {
            Ok(self.leave_poll_mode(cx, ready))
        }
    }

    /// Polls every handler once, without stopping at the first hit. Returns `true` if there was a hit.
    #[inline]
    pub(crate) fn round(&self, cx: &Context, ready: &mut ReadyList) -> bool {
        cx.assert_free();
        self.polling.set.round(|token| push_hit(ready, token))
    }

    fn enter_poll_mode(&self, cx: &Context) {
        cx.assert_free();
        self.polling.set.enter();
    }

    /// Leaves poll mode, right before a real wait, and polls every handler one last time (rule A5). Hits go
    /// to `ready`. Returns `true` if a handler has work that no kick announces.
    #[inline(never)]
    pub(crate) fn leave_poll_mode(&self, cx: &Context, ready: &mut ReadyList) -> bool {
        cx.assert_free();
        self.polling.set.exit(|token| push_hit(ready, token))
    }

    /// Demotes idle handlers. Hits of their last polls go to `ready`.
    fn demote_idle(&self, cx: &Context, costs: &IdleCosts, ready: &mut ReadyList) {
        cx.assert_free();
        self.polling.set.demote_idle(
            costs.idle_after(),
            |token| self.comes_back(token),
            |all, idle| costs.surplus(all, idle),
            |token| push_hit(ready, token),
        );
    }

    /// Returns `true` if an event, or a wake, can bring a demoted handler back.
    fn comes_back(&self, token: Token) -> bool {
        let registry = self.descriptors.registry.borrow();
        if registry.interest(token) != Some(Interest::NONE) {
            return true;
        }
        registry.fd(token).is_none()
    }

    /// Returns the polled interface of a handler.
    pub(crate) fn pollable(&self, token: Token) -> Option<Rc<dyn Join>> {
        self.descriptors.registry.borrow().get(token)?.pollable().cloned()
    }

    /// Returns the present time on the loop's own clock.
    pub(crate) fn now(&self) -> Moment {
        self.timers.now(ClockId::Monotonic)
    }
}

/// Appends a hit to the list, if there is room.
pub(crate) fn push_hit(ready: &mut ReadyList, token: Token) -> ControlFlow<()> {
    if ready.push(token, Readiness::empty()) {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}
