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
use aio_pollctl::ClockStride;
use aio_timers::Moment;

use crate::handler::Join;
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
        let (mut stride, mut hit) = (ClockStride::new(), false);
        loop {
            if self.looks.is_due(now) {
                now = self.timed_look(cx, now, ready)?;
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
            stride.took(now.since(before));
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
        if self.polled.is_calling() {
            // Nested in a question, or in the way into or out of poll mode: that goes on afterwards.
            Ok(false)
        } else if self.polled.is_on() && self.polling_enabled.get() {
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
            if self.demotion_is_due() {
                self.demote_idle(cx, ready);
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
        cx.assert_free();
        self.polled.round(|token| push_hit(ready, token))
    }

    fn enter_poll_mode(&self, cx: &Context) {
        cx.assert_free();
        self.polled.enter();
    }

    /// Leaves poll mode, right before a real wait, and asks everybody one last time (rule A5). A hit goes to `ready`; true if
    /// somebody has work that nobody kicks for.
    #[inline(never)]
    pub(crate) fn leave_poll_mode(&self, cx: &Context, ready: &mut ReadyList) -> bool {
        cx.assert_free();
        self.polled.exit(|token| push_hit(ready, token))
    }

    /// The polled face of a handler.
    pub(crate) fn pollable(&self, token: Token) -> Option<Rc<dyn Join>> {
        self.registry.borrow().get(token)?.pollable().cloned()
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
}
