//! Busy polling: poll mode with its begin and end calls, and the search for work in user space.
//!
//! It never waits. How long it polls is the policy's decision, and when it checks the descriptors meanwhile [`Pacing`]'s
//! (rules R10, D8).
//!
//! [`Pacing`]: crate::pacing::Pacing

use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Interest, Readiness, ReadyList, Token};
use aio_notify::thread_cpu_time;
use aio_pollctl::{ClockStride, Contention};
use aio_timers::Moment;

use crate::clock_id::ClockId;
use crate::descriptors::Described;
use crate::handler::Join;
use crate::{Context, context::Inner};

/// What polling found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Polled {
    /// There is something to do: do not wait.
    pub(crate) hit: bool,
    /// How long it polled, as far as a clock was read.
    pub(crate) spun: Duration,
    /// When it stopped looking, if a clock was read: a hit in the very first round costs none.
    pub(crate) ended: Option<Moment>,
}

impl Polled {
    /// It did not poll.
    #[inline]
    pub(crate) fn not_at(now: Moment) -> Self {
        Self {
            ended: Some(now),
            ..Self::default()
        }
    }
}

impl Inner {
    /// Looks for work for up to `budget` (rules A2, A3): polled handlers, notifications, and the other descriptors (rule R10): in each
    /// round if the backend can peek, otherwise at intervals. Hits go to `ready` with an empty readiness.
    #[inline(never)]
    pub(crate) fn search(&self, cx: &Context, budget: Duration, ready: &mut ReadyList) -> io::Result<Polled> {
        let clock = self.timers.clock(ClockId::Monotonic);
        let is_decided = !self.polling.set.is_on() && self.pacing.is_contended();
        if is_decided {
            // Peers go on kicking while polling is suspended: the way into poll mode and out of it costs them and the loop more than a kick.
            let now = clock.now();
            if !self.pacing.is_worth_it(now) {
                return Ok(Polled::not_at(now));
            }
        }
        self.enter_poll_mode(cx);
        if self.pacing.checks.get().is_pending() {
            self.check(cx, ready)?;
        }
        if self.round(cx, ready) || self.is_found(ready) {
            self.shared.counters.hit();
            self.check_after_hit(cx, ready)?;
            return Ok(Polled {
                hit: true,
                ..Polled::default()
            });
        }
        let started = clock.now();
        if !is_decided && !self.pacing.is_worth_it(started) {
            return Ok(Polled::not_at(started));
        }
        let mut compared = None;
        let mut now = started;
        let (mut stride, mut hit) = (ClockStride::new(), false);
        let peeks = self.descriptors.can_peek();
        loop {
            if !peeks && self.pacing.checks.get().is_due(now.as_nanos()) {
                now = self.timed_check(cx, now, ready)?;
                hit = !ready.is_empty();
            }
            if !hit && self.demotion_is_due() {
                self.demote_idle(cx, ready);
                hit = !ready.is_empty();
            }
            for _ in 0..stride.rounds() {
                if hit {
                    break;
                }
                std::hint::spin_loop();
                hit = self.round(cx, ready) || self.mailbox.is_notified();
                if peeks && !hit {
                    hit = self.peek(cx, ready)?;
                }
            }
            let before = now;
            now = clock.now();
            if self.sees_gap(before, now) || hit || now.since(started) >= budget {
                break;
            }
            if compared.is_none() && now.since(started) >= Contention::COMPARED_AFTER {
                compared = self.pacing.contention(|_| (now, thread_cpu_time()));
            }
            if now == before && clock.pass(budget.saturating_sub(now.since(started))) {
                // Simulated time does not move by itself: the rest of the budget passes at once.
                now = clock.now();
                break;
            }
            stride.took(now.since(before));
        }
        let spun = now.since(started);
        self.shared.counters.searched(hit, spun);
        self.end_search(compared, now, hit);
        Ok(Polled {
            hit,
            spun,
            ended: Some(now),
        })
    }

    /// Whether the thread did not run for a while between two readings of the clock.
    #[inline]
    fn sees_gap(&self, before: Moment, now: Moment) -> bool {
        let is_gap = self
            .pacing
            .contention(|one| one.read(before.as_nanos(), now.as_nanos()))
            == Some(true);
        if is_gap {
            self.suspended();
        }
        is_gap
    }

    /// Compares a long search with its processor time, from `since` on, and records whether it has found something.
    #[inline]
    fn end_search(&self, since: Option<(Moment, Duration)>, now: Moment, hit: bool) {
        let mut is_turn = false;
        if let Some((began, cpu_before)) = since {
            let (took, cpu) = (now.since(began), thread_cpu_time().saturating_sub(cpu_before));
            is_turn = self
                .pacing
                .contention(|one| one.compared(took, cpu, now.as_nanos()))
                == Some(true);
        }
        // What another thread has done meanwhile polling has not found.
        if self.pacing.contention(|one| one.found(hit && !is_turn)) == Some(true) || is_turn {
            self.suspended();
        }
    }

    /// Polling is suspended for a while.
    #[cold]
    fn suspended(&self) {
        self.shared.counters.suspension();
        tracing::debug!(
            "polling is suspended for a while: other threads run on this core, or a quota is used up"
        );
    }

    /// What an iteration does that may not wait, because no peer kicks in poll mode (rule D8): polls every handler once or, if
    /// polling was switched off meanwhile, leaves poll mode. A check of the descriptors comes after it. True if a handler has work.
    #[cold]
    pub(crate) fn poll_unkicked(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<bool> {
        if self.pacing.checks.get().is_pending() {
            self.check(cx, ready)?;
        }
        if self.polling.set.is_calling() {
            // Nested in a question, or in the way into or out of poll mode: that goes on afterwards.
            Ok(false)
        } else if self.polling.set.is_on() && self.polling.is_enabled() {
            self.enter_poll_mode(cx);
            Ok(self.round(cx, ready))
        } else {
            Ok(self.leave_poll_mode(cx, ready))
        }
    }

    /// Something to do ends an iteration without a check, unless one is due (rules R10, D8).
    #[inline(never)]
    pub(crate) fn check_after_hit(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<()> {
        let checks = &self.pacing.checks;
        if checks.step(|checks| checks.count_unchecked()) {
            if self.demotion_is_due() {
                self.demote_idle(cx, ready);
            }
            let peeks = self.descriptors.can_peek();
            if !checks.get().reads_clock(peeks) {
                return Ok(());
            }
            let now = self.now();
            if checks.get().is_due_after_streak(now.as_nanos()) {
                self.timed_check(cx, now, ready)?;
            } else if peeks && checks.get().is_peek_due(now.as_nanos()) {
                self.peek_after_hit(cx, now, ready)?;
            }
        }
        Ok(())
    }

    /// Checks the descriptors, without a system call while nothing is ready (rule R10). True if something is.
    #[inline(never)]
    fn peek(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<bool> {
        let first = ready.len();
        if self.descriptors.peek(ready)? {
            self.rebalance();
            self.descriptors.wait(Some(Duration::ZERO), ready)?;
        }
        let is_found = ready.len() > first;
        if is_found {
            self.record_from(cx, first, ready);
        }
        Ok(is_found)
    }

    /// As [`peek`](Self::peek), after hits. The kick of a handler that polling has found to have work makes its descriptor ready as well,
    /// which is no other event. The checks that are due by time report both: a handler may wait for more than its work.
    #[inline(never)]
    fn peek_after_hit(&self, cx: &Context, now: Moment, ready: &mut ReadyList) -> io::Result<()> {
        let first = ready.len();
        if self.descriptors.peek(ready)? {
            self.rebalance();
            self.descriptors.wait(Some(Duration::ZERO), ready)?;
            if !self.record_unless_hit(cx, first, ready) {
                let ended = self.now();
                let checks = &self.pacing.checks;
                checks.step(|checks| checks.peeked_in_vain(now.as_nanos(), ended.as_nanos()));
            }
        } else if ready.len() > first {
            self.record_unless_hit(cx, first, ready);
        }
        Ok(())
    }

    fn timed_check(&self, cx: &Context, now: Moment, ready: &mut ReadyList) -> io::Result<Moment> {
        let before = ready.len();
        self.check(cx, ready)?;
        let after = self.now();
        let found = ready.len() > before;
        self.pacing
            .checks
            .step(|checks| checks.done(now.as_nanos(), after.as_nanos(), found));
        Ok(after)
    }

    /// Asks every polled handler once, without stopping at the first hit; true if there was one.
    pub(crate) fn round(&self, cx: &Context, ready: &mut ReadyList) -> bool {
        cx.assert_free();
        self.polling.set.round(|token| push_hit(ready, token))
    }

    fn enter_poll_mode(&self, cx: &Context) {
        cx.assert_free();
        self.polling.set.enter();
    }

    /// Leaves poll mode, right before a real wait, and polls every handler one last time (rule A5). A hit goes to `ready`; true if
    /// a handler has work that no kick announces.
    #[inline(never)]
    pub(crate) fn leave_poll_mode(&self, cx: &Context, ready: &mut ReadyList) -> bool {
        cx.assert_free();
        self.polling.set.exit(|token| push_hit(ready, token))
    }

    /// Whether the next check for idle handlers is due.
    #[inline]
    pub(crate) fn demotion_is_due(&self) -> bool {
        self.pacing.is_idle_test_due(self.polling.set.rounds())
    }

    /// Demotes idle handlers. Hits of their last polls go to `ready`.
    #[cold]
    pub(crate) fn demote_idle(&self, cx: &Context, ready: &mut ReadyList) {
        let costs = self.pacing.test_idle(self.polling.set.rounds());
        cx.assert_free();
        self.polling.set.demote_idle(
            costs.idle_after(),
            |token| self.comes_back(token),
            |all, idle| costs.surplus(all, idle),
            |token| push_hit(ready, token),
        );
    }

    /// Returns whether an event, or a wake, can bring a demoted handler back.
    fn comes_back(&self, token: Token) -> bool {
        let registry = self.descriptors.registry.borrow();
        if registry.interest(token) != Some(Interest::NONE) {
            return true;
        }
        registry.get(token).is_some_and(Described::is_undescribed)
    }

    /// The polled face of a handler.
    pub(crate) fn pollable(&self, token: Token) -> Option<Rc<dyn Join>> {
        self.descriptors.registry.borrow().get(token)?.pollable().cloned()
    }

    /// Now on the loop's own clock.
    pub(crate) fn now(&self) -> Moment {
        self.timers.now(ClockId::Monotonic)
    }
}

/// Puts a hit on the list, if there is room.
pub(crate) fn push_hit(ready: &mut ReadyList, token: Token) -> ControlFlow<()> {
    if ready.push(token, Readiness::empty()) {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}
