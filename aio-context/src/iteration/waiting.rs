//! Step 2 of an iteration: it checks the descriptors, or waits.
//!
//! A plan is made first and carried out in one place, which is compiled into the iteration (see `any_backend.rs`).

use std::io;
use std::time::Duration;

use aio_backend::ReadyList;
use aio_pollctl::{PreSleepSpin, Searched};
use aio_timers::Moment;

use crate::Context;
use crate::context::Inner;
use crate::iteration::found::Found;

impl Inner {
    /// An iteration that may not wait checks the descriptors. While bottom halves prevent one iteration after the other from waiting,
    /// the first one checks, and then those that find a check due (rule D8). On a simulated clock all do: no time passes there.
    #[inline(always)]
    pub(crate) fn plan_not_to_wait(
        &self,
        cx: &Context,
        is_urgent: bool,
        ready: &mut ReadyList,
    ) -> io::Result<Plan> {
        if self.polling.set.needs_exit() {
            self.poll_unkicked(cx, ready)?;
        }
        let is_prevented = is_urgent && !self.timers.is_simulated();
        if self
            .pacing
            .checks
            .step(|checks| checks.prevents_again(is_prevented))
        {
            self.check_after_hit(cx, ready)?;
            Ok(Plan::Skip)
        } else {
            Ok(Plan::Check)
        }
    }

    /// Prepares to wait for the rest of the timeout (rule A4), unless polling finds work meanwhile.
    #[inline(always)]
    pub(crate) fn plan_to_wait(
        &self,
        cx: &Context,
        timeout: Option<Duration>,
        searched: Searched,
        ready: &mut ReadyList,
    ) -> io::Result<Plan> {
        let left = timeout.map(|timeout| timeout.saturating_sub(searched.spun));
        if left == Some(Duration::ZERO) {
            return Ok(Plan::Check);
        }
        if self.polling.set.needs_exit() && self.leave_poll_mode(cx, ready) {
            return Ok(Plan::Check);
        }
        if !self.timers.is_simulated() {
            if self.mailbox.is_being_written() && self.outlast_write() {
                return Ok(Plan::Check);
            }
            // After polling the loop has waited long enough. A wait that passes operations to the system begins at once: it makes one
            // system call instead of two, and a thread that executes them may be waiting for this core.
            if searched.spun.is_zero()
                && !self.take_skips_spin()
                && self.pacing.pre_sleep.step(|spin| spin.is_worth_it())
            {
                return Ok(Plan::Spin(left));
            }
        }
        Ok(self.announce(left))
    }

    /// Returns whether the next wait shall [begin at once](Context::skip_spin), and forgets it.
    #[inline(always)]
    fn take_skips_spin(&self) -> bool {
        let skips = self.skips_spin.get() != 0;
        if skips {
            self.skips_spin.set(0);
        }
        skips
    }

    /// Stays awake until the write that woke the loop returns, and a moment longer; true if there was a notification (rule N6).
    #[cold]
    fn outlast_write(&self) -> bool {
        let began = self.now();
        let is_burst = self.mailbox.outlast_write(|| self.now().since(began));
        if is_burst {
            // The gaps of a burst are short: worth spinning for.
            self.pacing.pre_sleep.step(PreSleepSpin::found_at_once);
        }
        is_burst
    }

    /// Announces a wait, unless there is a notification (rule N2).
    #[inline]
    fn announce(&self, left: Option<Duration>) -> Plan {
        if self.mailbox.prepare_to_wait() {
            Plan::Wait(left)
        } else {
            Plan::Check
        }
    }

    /// Checks or waits, and records what that found; true if it waited.
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
                self.descriptors.wait(Some(Duration::ZERO), ready)?;
                if let Plan::Spin(left) = plan {
                    if !self.is_found(ready) {
                        return self.spin_on(cx, left, found);
                    }
                    self.pacing.pre_sleep.step(PreSleepSpin::found_at_once);
                }
            }
            Plan::Wait(left) => {
                let _sleep = self.mailbox.sleep_guard();
                // Two readings of the clock are cheap beside a wait. A check that finds something reads none.
                let began = self.now();
                if left.is_some() {
                    self.wait_for(began, left, ready)?;
                } else {
                    self.rebalance();
                    self.descriptors.wait(None, ready)?;
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

    /// Checks a few times more, because that has paid lately, and waits if it finds nothing; true if it waited.
    #[inline(never)]
    fn spin_on(&self, cx: &Context, timeout: Option<Duration>, found: &mut Found<'_>) -> io::Result<bool> {
        let (is_found, passed) = self.pacing.spin(&mut self.searching(cx, found.list()), timeout)?;
        if is_found {
            return Ok(false);
        }
        let left = timeout.map(|timeout| timeout.saturating_sub(passed));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        let plan = self.announce(left);
        self.carry_out_apart(cx, plan, found)
    }

    #[inline(never)]
    fn carry_out_apart(&self, cx: &Context, plan: Plan, found: &mut Found<'_>) -> io::Result<bool> {
        self.carry_out(cx, plan, found)
    }

    pub(crate) fn is_found(&self, ready: &ReadyList) -> bool {
        !ready.is_empty() || self.mailbox.is_notified()
    }

    /// Waits until something is ready, a thread notifies, or `timeout` after `began` is over; interruptions do not count (rule D4).
    #[inline(never)]
    fn wait_for(&self, began: Moment, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let deadline = timeout.map(|timeout| began.saturating_add(timeout));
        let mut left = timeout;
        loop {
            let before = ready.len();
            self.rebalance();
            if left.is_some() && self.timers.is_simulated() {
                self.descriptors.wait(Some(Duration::ZERO), ready)?;
                if ready.len() == before && !self.mailbox.is_notified() {
                    self.timers
                        .clock(crate::ClockId::Monotonic)
                        .pass(left.unwrap_or_default());
                }
                return Ok(());
            }
            self.descriptors.wait(left, ready)?;
            if ready.len() > before || self.mailbox.is_notified() {
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

    /// Checks the descriptors without waiting.
    pub(crate) fn check(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<()> {
        self.pacing.checks.step(|checks| checks.checked(ready.is_full()));
        self.check_unpaced(cx, ready)
    }

    /// As [`check`](Self::check), which the caller records.
    pub(crate) fn check_unpaced(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<()> {
        self.rebalance();
        let first = ready.len();
        self.descriptors.wait(Some(Duration::ZERO), ready)?;
        self.record_from(cx, first, ready);
        Ok(())
    }

    #[inline]
    pub(crate) fn rebalance(&self) {
        self.descriptors.rebalance(self.nesting.depth.get() <= 1);
    }
}

/// What an iteration does about the descriptors.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    /// Nothing: there is something else to do.
    Skip,
    /// Checks them.
    Check,
    /// Checks them, if nothing is ready a few times more, and then waits.
    Spin(Option<Duration>),
    /// Waits for so long, or (`None`) until something comes.
    Wait(Option<Duration>),
}
