//! Step 2 of an iteration: checks the descriptors, or waits.
//!
//! [`Pacing::plan`](aio_pollctl::Pacing::plan) first makes a plan, with the steps of [`Prepare`]. One
//! function carries it out, which is compiled into the iteration (see `any_backend.rs`).

use std::io;
use std::time::Duration;

use aio_backend::ReadyList;
use aio_pollctl::{Plan, PreSleepSpin, Prepare};
use aio_timers::{Moment, wait_for};

use crate::Context;
use crate::clock_id::ClockId;
use crate::context::Inner;
use crate::iteration::found::Found;
use crate::iteration::search::Searching;

impl Prepare for Searching<'_> {
    type Error = io::Error;

    #[inline]
    fn is_simulated(&self) -> bool {
        self.inner.timers.is_simulated()
    }

    #[inline(always)]
    fn leave_poll_mode(&mut self) -> bool {
        self.inner.polling.set.needs_exit() && self.inner.leave_poll_mode(self.cx, self.ready)
    }

    #[inline(always)]
    fn poll_unkicked(&mut self) -> io::Result<()> {
        if self.inner.polling.set.needs_exit() {
            self.inner.poll_unkicked(self.cx, self.ready)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn after_hit(&mut self) -> io::Result<()> {
        self.inner.pacing.after_hit(self)
    }

    #[inline(always)]
    fn outlast_write(&mut self) -> bool {
        self.inner.mailbox.is_being_written() && self.inner.outlast_write()
    }

    #[inline(always)]
    fn announce(&mut self) -> bool {
        self.inner.mailbox.prepare_to_wait()
    }
}

impl Inner {
    /// Stays awake until the write that woke the loop returns, and a moment longer. Returns `true` if there
    /// was a notification (rule N6).
    #[cold]
    fn outlast_write(&self) -> bool {
        let began = self.now();
        self.mailbox.outlast_write(|| self.now().since(began))
    }

    /// Checks or waits, and collects the events. Returns `true` if it waited.
    ///
    /// Inlined by force: see `any_backend.rs`.
    #[inline(always)]
    pub(crate) fn carry_out(&self, cx: &Context, plan: Plan, found: &mut Found<'_>) -> io::Result<bool> {
        let ready = found.list();
        let first = ready.len();
        match plan {
            Plan::Skip => return Ok(false),
            Plan::Check | Plan::Spin(_) => {
                self.pacing.checks.step(|checks| checks.checked(ready.is_full()));
                self.rebalance();
                self.descriptors.backend.wait(Some(Duration::ZERO), ready)?;
                if let Plan::Spin(left) = plan {
                    if !self.is_found(ready) {
                        return self.spin_on(cx, left, found);
                    }
                    self.pacing.pre_sleep.step(PreSleepSpin::found_at_once);
                }
            }
            Plan::Wait(left) => {
                let _sleep = self.mailbox.sleep_guard();
                // Two readings of the clock are cheap beside a wait. A check that finds an event reads none.
                let began = self.now();
                if left.is_some() {
                    self.wait_for(began, left, ready)?;
                } else {
                    self.rebalance();
                    self.descriptors.backend.wait(None, ready)?;
                    if !self.is_found(ready) {
                        // Interrupted.
                        self.wait_for(began, None, ready)?;
                    }
                }
                self.shared.counters.sleep(self.now().since(began));
            }
        }
        self.collect(cx, first, found);
        Ok(matches!(plan, Plan::Wait(_)))
    }

    /// Checks a few times more, because that has paid lately, and waits if it finds nothing. Returns `true`
    /// if it waited.
    #[inline(never)]
    fn spin_on(&self, cx: &Context, timeout: Option<Duration>, found: &mut Found<'_>) -> io::Result<bool> {
        let announce = || self.mailbox.prepare_to_wait();
        let searching = &mut self.searching(cx, found.list());
        let plan = self.pacing.spin_on(searching, timeout, announce)?;
        self.carry_out_apart(cx, plan, found)
    }

    #[inline(never)]
    fn carry_out_apart(&self, cx: &Context, plan: Plan, found: &mut Found<'_>) -> io::Result<bool> {
        self.carry_out(cx, plan, found)
    }

    pub(crate) fn is_found(&self, ready: &ReadyList) -> bool {
        !ready.is_empty() || self.mailbox.is_notified()
    }

    /// Waits until an event is ready, a thread notifies, or `timeout` after `began` is over. Interruptions do
    /// not end the wait (rule D4).
    #[inline(never)]
    fn wait_for(&self, began: Moment, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let clock = self.timers.clock(ClockId::Monotonic);
        wait_for(clock, began, timeout, |left| {
            let before = ready.len();
            self.rebalance();
            self.descriptors.backend.wait(left, ready)?;
            Ok(ready.len() > before || self.mailbox.is_notified())
        })
    }

    /// Checks the descriptors without waiting.
    pub(crate) fn check(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<()> {
        self.pacing.checks.step(|checks| checks.checked(ready.is_full()));
        self.check_unpaced(cx, ready)
    }

    /// As [`check`](Self::check), except that the caller records the check for pacing.
    pub(crate) fn check_unpaced(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<()> {
        self.rebalance();
        let first = ready.len();
        self.descriptors.backend.wait(Some(Duration::ZERO), ready)?;
        self.record_from(cx, first, ready);
        Ok(())
    }

    #[inline]
    pub(crate) fn rebalance(&self) {
        self.descriptors.backend.rebalance(self.nesting.depth() <= 1);
    }
}
