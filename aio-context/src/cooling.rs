//! Cooling: polled handlers that have been idle leave the polled set, and come back with their first event (rule A8).
//!
//! # Who leaves, and when
//! Two questions are asked of every handler, each [`CHECK_EVERY`] rounds:
//! - *Has it been asked in vain for as much as its return would cost?* To ask costs [`ASK`]; to come back costs [`RETURN`]:
//!   a kick by the peer and a look at the descriptors. Before that it stays: whoever leaves at the moment when the rent paid
//!   equals the price is never worse than twice the best choice (ski rental). Only rounds before an event of *another*
//!   handler count: as long as nothing happens at all, how long to poll is the policy's affair.
//! - *Do such handlers take more than one part in [`IDLE_SHARE`] of a round?* Below that they may stay for ever.
//!
//! So the time until a handler leaves follows from costs: with 3,200 handlers it is some milliseconds of polling, and two or
//! three idle ones beside a busy one stay. A handler without an interest never leaves, because no event could bring it
//! back.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use aio_backend::{Interest, ReadyList, Token};

use crate::Context;
use crate::context::Inner;

/// What it costs to ask one handler, in nanoseconds, as part of a long round.
const ASK: u32 = 3;
/// What a round costs besides, in nanoseconds.
const ROUND: u32 = 40;
/// What an event costs more when it comes by a descriptor instead of a question, in nanoseconds.
const RETURN: u32 = 2000;
/// Idle handlers may take this share of a round: one part in ten.
const IDLE_SHARE: u32 = 10;
/// `poll_begin` and `poll_end` of a handler cost as much as so many questions.
pub(crate) const BEGIN_AND_END: u32 = 16;
/// So many rounds between two checks.
const CHECK_EVERY: u32 = 256;

/// When the last check was, and room to note who is to leave.
#[derive(Debug, Default)]
pub(crate) struct Cooling {
    checked: Cell<u32>,
    idle: RefCell<Vec<Token>>,
}

/// How many of `idle` handlers must leave a set of `all`.
fn surplus(all: usize, idle: usize) -> usize {
    let round = ROUND as usize + ASK as usize * all;
    let may_stay = round / (IDLE_SHARE as usize * ASK as usize);
    idle.saturating_sub(may_stay)
}

impl Inner {
    /// Whether it is time to look for idle handlers.
    #[inline]
    pub(crate) fn cooling_is_due(&self) -> bool {
        self.hot.rounds().wrapping_sub(self.cooling.checked.get()) >= CHECK_EVERY
    }

    /// Has idle handlers leave the polled set: `poll_end`, then one last question.
    #[cold]
    pub(crate) fn cool_down(&self, cx: &Context, ready: &mut ReadyList) {
        let rounds = self.hot.rounds();
        self.cooling.checked.set(rounds);
        let mut idle = self.cooling.idle.take();
        idle.clear();
        let registry = self.registry.borrow();
        self.hot.walk(|token, _| {
            let Some(polled) = registry.get(token).and_then(|entry| entry.polled.as_ref()) else {
                return;
            };
            let waits = polled.is_board || registry.interest(token) != Some(Interest::NONE);
            let asked_in_vain = self.hot.age(polled.last_event);
            if waits && asked_in_vain >= RETURN / ASK {
                idle.push(token);
            }
        });
        drop(registry);
        let leave = surplus(self.hot.len(), idle.len());
        for token in idle.drain(..).take(leave) {
            self.cool(cx, token, ready);
        }
        self.cooling.idle.replace(idle);
    }

    /// One handler leaves, unless its last question is answered with yes. One of which a callback is running (rule A9) is left for
    /// another time.
    ///
    /// Who is told `poll_end` may do anything: remove itself, pause its group, panic, after which it stays. Nobody kicks for what
    /// came before, so it is noted that it is to be asked, until it has been.
    fn cool(&self, cx: &Context, token: Token, ready: &mut ReadyList) {
        let Some(handler) = self.polled_handler(token).filter(|_| !self.hot.is_busy(token)) else {
            return;
        };
        self.hot.remove(token);
        self.with_polled(token, |polled| polled.cold = true);
        if !self.is_begun(token) {
            return;
        }
        self.hot.ask_once(token);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.end(cx, token, &*handler))) {
            self.warm_up(token);
            resume_unwind(panic);
        }
        if self.ask_noted(cx, token, ready) {
            self.warm_up(token);
        }
    }

    /// Notes an event, if it is one of a polled handler; one that has cooled down joins the polled set again. Whether it is one
    /// of a polled handler.
    pub(crate) fn warm_up(&self, token: Token) -> bool {
        let was_cold = self.with_polled(token, |polled| {
            polled.last_event = self.hot.note_event();
            std::mem::replace(&mut polled.cold, false)
        });
        if was_cold == Some(true)
            && let Some(handler) = self.polled_handler(token)
        {
            self.hot.insert(token, handler);
        }
        was_cold.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a8_idle_handlers_keep_to_their_share() {
        assert_eq!(surplus(2, 1), 0, "too cheap to matter");
        assert_eq!(surplus(10, 9), 7);
        for all in [100, 1000, 3200] {
            let stay = all - surplus(all, all);
            assert!(stay * 10 * ASK as usize <= ROUND as usize + all * ASK as usize);
        }
    }
}
