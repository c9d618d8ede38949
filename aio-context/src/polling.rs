//! Busy polling: poll mode with its begin and end calls, and the search for work in user space.
//!
//! It decides nothing about *how long* to look (that is the policy, `aio-pollctl`) and never blocks.
//!
//! # Looking at descriptors meanwhile (rules R10, D8)
//! What cannot be polled, what has cooled down, and what can be written is found by a look at the backend: at most [`LONGEST_BLINDNESS`] after
//! the one before, and sooner as long as looks find something, but not so often that looks take more than one part in
//! [`LOOK_SHARE`] of the time.

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use aio_backend::{Readiness, ReadyList, Token};
use aio_timers::Moment;

use crate::by_type::Join;
use crate::cooling;
use crate::handler::Pollable;
use crate::timer::ClockId;
use crate::{Context, context::Inner};

/// Between two looks at the descriptors while polling at most this long.
const LONGEST_BLINDNESS: Duration = Duration::from_micros(50);
/// A look may take this share of the time between two looks: one part in ten.
const LOOK_SHARE: u32 = 10;
/// After so many iterations that a poll hit has ended at once, the clock is read to see whether a look is due.
const STREAK: u32 = 4;
/// So many such iterations may follow each other without a look, whatever the clock says.
const LONGEST_STREAK: u32 = 64;

/// When the descriptors were looked at last, and how soon that is to be done again.
#[derive(Debug)]
pub(crate) struct Looks {
    /// Iterations since then.
    streak: Cell<u32>,
    /// Bottom halves kept the last iteration from waiting.
    kept: Cell<bool>,
    /// The list was full of other things: next time the look comes first.
    owed: Cell<bool>,
    last: Cell<Moment>,
    interval: Cell<Duration>,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            streak: Cell::new(0),
            kept: Cell::new(false),
            owed: Cell::new(false),
            last: Cell::new(Moment::ZERO),
            interval: Cell::new(LONGEST_BLINDNESS),
        }
    }
}

impl Looks {
    /// Notes that somebody looks, at a time that is not known; in vain if there was no room for what could be found.
    pub(crate) fn looked(&self, in_vain: bool) {
        self.streak.set(0);
        self.owed.set(in_vain);
    }

    /// Notes whether bottom halves keep this iteration from waiting; true if they did so with the last one, too.
    #[inline]
    pub(crate) fn is_kept_again(&self, is_kept: bool) -> bool {
        self.kept.replace(is_kept) && is_kept
    }

    fn is_due(&self, now: Moment) -> bool {
        now.since(self.last.get()) >= self.interval.get()
    }

    /// Notes a look that began and ended then. One that found something makes the next one come as soon as its cost
    /// allows, each one that found nothing doubles the time to the next.
    fn done(&self, began: Moment, ended: Moment, found: bool) {
        self.last.set(ended);
        let soonest = ended.since(began) * LOOK_SHARE;
        let next = if found { soonest } else { self.interval.get() * 2 };
        self.interval.set(next.max(soonest).min(LONGEST_BLINDNESS));
    }
}

/// What polling found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Polled {
    /// There is something to do: do not wait.
    pub(crate) hit: bool,
    /// How long it looked, as far as a clock was read.
    pub(crate) spun: Duration,
    /// When it stopped looking, if a clock was read: a hit in the very first round costs none.
    pub(crate) ended: Option<Moment>,
}

impl Inner {
    /// Looks for work for up to `budget` (rules A2, A3): polled handlers, notifications, and, at intervals, the other
    /// descriptors (rule R10). Hits go to `ready` with an empty readiness.
    #[inline(never)]
    pub(crate) fn search(&self, cx: &Context, budget: Duration, ready: &mut ReadyList) -> io::Result<Polled> {
        self.enter_poll_mode(cx);
        let clock = self.timers.clock(ClockId::Monotonic);
        if self.looks.owed.get() {
            self.look(cx, ready)?;
        }
        if self.round(cx, ready) || self.is_found(ready) {
            self.look_after_hit(cx, ready)?;
            return Ok(Polled {
                hit: true,
                ..Polled::default()
            });
        }
        let started = clock.now();
        let mut now = started;
        let (mut stride, mut hit) = (1u32, false);
        loop {
            if self.looks.is_due(now) {
                now = self.timed_look(cx, now, ready)?;
                hit = !ready.is_empty();
            }
            if !hit && self.cooling_is_due() {
                self.cool_down(cx, ready);
                hit = !ready.is_empty();
            }
            for _ in 0..stride {
                if hit {
                    break;
                }
                std::hint::spin_loop();
                hit = self.round(cx, ready) || self.shared.notifier.is_notified();
            }
            let before = now;
            now = clock.now();
            if hit || now.since(started) >= budget {
                break;
            }
            if now == before && clock.pass(budget.saturating_sub(now.since(started))) {
                // Simulated time does not move by itself: the rest of the budget passes at once.
                now = clock.now();
                break;
            }
            stride = next_stride(stride, now.since(before));
        }
        Ok(Polled {
            hit,
            spun: now.since(started),
            ended: Some(now),
        })
    }

    /// What an iteration does that may not wait, because nobody kicks in poll mode (rule D8): asks everybody once, or, when
    /// polling was switched off meanwhile, leaves poll mode. A look at the descriptors comes after it. True if somebody has work.
    #[cold]
    pub(crate) fn ask_unkicked(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<bool> {
        if self.looks.owed.get() {
            self.look(cx, ready)?;
        }
        if self.hot.is_walked() {
            // Nested in a question, or in the way into or out of poll mode: that goes on afterwards.
            Ok(false)
        } else if self.hot.mode.get() && self.polling_enabled.get() {
            self.enter_poll_mode(cx);
            Ok(self.round(cx, ready))
        } else {
            Ok(self.leave_poll_mode(cx, ready))
        }
    }

    /// Something to do ends an iteration without a look, unless one is due (rules R10, D8).
    #[inline(never)]
    pub(crate) fn look_after_hit(&self, cx: &Context, ready: &mut ReadyList) -> io::Result<()> {
        let streak = self.looks.streak.get() + 1;
        self.looks.streak.set(streak);
        if streak.is_multiple_of(STREAK) {
            if self.cooling_is_due() {
                self.cool_down(cx, ready);
            }
            let now = self.now();
            if self.looks.is_due(now) || streak >= LONGEST_STREAK {
                self.timed_look(cx, now, ready)?;
            }
        }
        Ok(())
    }

    fn timed_look(&self, cx: &Context, now: Moment, ready: &mut ReadyList) -> io::Result<Moment> {
        let before = ready.len();
        self.look(cx, ready)?;
        let after = self.now();
        self.looks.done(now, after, ready.len() > before);
        Ok(after)
    }

    /// Asks every polled handler once, without stopping at the first hit; true if there was one.
    fn round(&self, cx: &Context, ready: &mut ReadyList) -> bool {
        let mut hit = false;
        cx.assert_free();
        self.hot.round(|token| {
            hit = true;
            self.note_hit(token, ready)
        });
        hit
    }

    /// Puts a hit on the list; breaks if the list is full.
    pub(crate) fn note_hit(&self, token: Token, ready: &mut ReadyList) -> ControlFlow<()> {
        self.with_polled(token, |polled| {
            if ready.push(token, Readiness::empty()) {
                polled.hit = true;
                polled.last_event = self.hot.note_event();
            }
        });
        if ready.is_full() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn enter_poll_mode(&self, cx: &Context) {
        if !self.hot.mode.replace(true) {
            self.hot.newcomers.borrow_mut().clear();
            self.hot.walk(|token, handler| self.begin(cx, token, handler));
        }
        if !self.hot.newcomers.borrow().is_empty() {
            self.greet_newcomers(cx);
        }
    }

    /// Calls `poll_begin` of those that came while poll mode was on (rule R7).
    #[cold]
    fn greet_newcomers(&self, cx: &Context) {
        loop {
            let Some(token) = self.hot.newcomers.borrow_mut().pop() else {
                return;
            };
            if let Some(handler) = self.hot_handler(token) {
                self.begin(cx, token, &*handler);
            }
        }
    }

    /// Looks at, or changes, what is kept of a polled handler.
    #[inline]
    pub(crate) fn with_polled<R>(
        &self,
        token: Token,
        look: impl FnOnce(&mut crate::handler::Polled) -> R,
    ) -> Option<R> {
        let mut registry = self.registry.borrow_mut();
        registry.get_mut(token)?.polled.as_deref_mut().map(look)
    }

    /// A polled handler that is not paused.
    pub(crate) fn polled_handler(&self, token: Token) -> Option<Rc<dyn Join>> {
        let registry = self.registry.borrow();
        if registry.is_paused(registry.group(token)?) {
            return None;
        }
        registry.get(token)?.pollable().cloned()
    }

    /// A polled handler that is not paused and has not cooled down.
    fn hot_handler(&self, token: Token) -> Option<Rc<dyn Join>> {
        let cold = self.with_polled(token, |polled| polled.cold)?;
        self.polled_handler(token).filter(|_| !cold)
    }

    fn begin(&self, cx: &Context, token: Token, handler: &dyn Pollable) {
        let begun = self.with_polled(token, |polled| std::mem::replace(&mut polled.begun, true));
        if begun == Some(false) {
            cx.call(|_| handler.poll_begin());
        }
    }

    /// Calls `poll_end` if `poll_begin` was called.
    pub(crate) fn end(&self, cx: &Context, token: Token, handler: &dyn Pollable) {
        let begun = self.with_polled(token, |polled| std::mem::replace(&mut polled.begun, false));
        if begun == Some(true) {
            cx.call(|_| handler.poll_end());
        }
    }

    /// Whether it has had its `poll_begin`, and no `poll_end` yet.
    pub(crate) fn is_begun(&self, token: Token) -> bool {
        self.with_polled(token, |polled| polled.begun) == Some(true)
    }

    /// Leaves poll mode, right before a real wait (rule A5): `poll_end` for everybody, then one last question. A hit
    /// goes to `ready`; true if there was one. Nobody kicks for what it found, so whoever said yes is asked again until it
    /// is called, whatever comes between: a nested poll, a panic, a pause, a replacement, a list that is full.
    ///
    /// A panic in the middle leaves poll mode on, with those that had their `poll_end` as newcomers: still balanced.
    pub(crate) fn leave_poll_mode(&self, cx: &Context, ready: &mut ReadyList) -> bool {
        let leaves = self.hot.mode.get() && !self.hot.is_walked();
        if leaves {
            self.hot.walk(|token, handler| {
                // First: it may pause its group, and is asked after the resume then.
                if self.is_begun(token) {
                    self.hot.newcomers.borrow_mut().push(token);
                    self.end(cx, token, handler);
                }
            });
            self.hot.ask_busy_ones();
        }
        let mut before = self.hot.unasked();
        if leaves {
            cx.assert_free();
            self.hot.round(|token| {
                self.hot.ask_once(token);
                let _ = self.note_hit(token, ready);
                ControlFlow::Continue(())
            });
            self.hot.newcomers.borrow_mut().clear();
            self.hot.mode.set(false);
            self.hot.add_rounds(cooling::BEGIN_AND_END);
        }
        while let Some(token) = self.hot.next_unasked(&mut before) {
            self.hot.ask_once(token);
            self.ask_noted(cx, token, ready);
        }
        // Who said yes is among them; and one that was asked may have brought others in: they are asked by the next iteration,
        // which comes at once.
        self.hot.is_anybody_unasked()
    }

    /// Asks one that is noted as unasked and, after a no, no longer is. A hit goes to `ready`; true if there was one.
    pub(crate) fn ask_noted(&self, cx: &Context, token: Token, ready: &mut ReadyList) -> bool {
        let Some(handler) = self.polled_handler(token) else {
            self.hot.answered(token);
            // Perhaps its group is paused: then it is asked after the resume.
            if self.registry.borrow().get(token).is_some() {
                self.owed_a_look.borrow_mut().push(token);
            }
            return false;
        };
        let hit = cx.call(|_| handler.poll());
        if hit {
            let _ = self.note_hit(token, ready);
        } else {
            self.hot.answered(token);
        }
        hit
    }

    /// Now on the loop's own clock.
    pub(crate) fn now(&self) -> Moment {
        self.timers.now(ClockId::Monotonic)
    }
}

/// How many rounds to do before the clock is read again: enough to make its cost small, few enough to stay exact.
fn next_stride(stride: u32, took: Duration) -> u32 {
    if took < Duration::from_nanos(500) {
        (stride * 2).min(64)
    } else if took > Duration::from_nanos(1500) {
        (stride / 2).max(1)
    } else {
        stride
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Moment {
        Moment::from_nanos(micros * 1000)
    }

    #[test]
    fn r10_looks_are_never_further_apart_than_the_bound_and_never_dearer_than_their_share() {
        let looks = Looks::default();
        let mut now = 0;
        for (cost, found, expected) in [
            (1, true, 10),
            (1, false, 20),
            (1, false, 40),
            (1, false, 50),
            (3, true, 30),
            (2, false, 50),
            (20, true, 50),
        ] {
            looks.done(at(now), at(now + cost), found);
            now += cost;
            assert_eq!(looks.interval.get(), Duration::from_micros(expected));
            assert!(!looks.is_due(at(now + expected - 1)));
            assert!(looks.is_due(at(now + expected)));
        }
    }

    #[test]
    fn strides_follow_what_a_round_costs() {
        assert_eq!(next_stride(1, Duration::from_nanos(30)), 2);
        assert_eq!(next_stride(64, Duration::from_nanos(30)), 64);
        assert_eq!(next_stride(8, Duration::from_micros(2)), 4);
        assert_eq!(next_stride(1, Duration::from_micros(2)), 1);
        for took in [500, 900, 1500] {
            assert_eq!(next_stride(16, Duration::from_nanos(took)), 16);
        }
    }
}
