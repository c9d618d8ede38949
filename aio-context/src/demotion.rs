//! Demotion: when idle handlers leave the polled set, and how many of them (rule A8). The set itself is `aio-pollset`'s.
//!
//! Every [`CHECK_EVERY`] rounds two things are checked:
//! - *Has a handler been polled in vain for as long as its return would cost?* One poll costs [`POLL`], a return costs
//!   [`RETURN`]: a kick by the peer and a check of the descriptors. Before that the handler stays. To leave at the moment when
//!   the rent paid equals the price never costs more than twice the best choice (ski rental). Only rounds before an event of
//!   *another* handler count: as long as nothing happens at all, the policy alone decides how long to poll.
//! - *Do idle handlers take more than one part in [`IDLE_SHARE`] of a round?* Below that they may stay for ever.
//!
//! So the time until a handler leaves follows from costs: of 3,200 handlers, idle ones leave after some milliseconds of
//! polling, and two or three idle ones beside a busy one stay. A handler without an interest never leaves, because no event
//! could bring it back.

use aio_backend::{Interest, ReadyList, Token};

use crate::Context;
use crate::context::Inner;
use crate::polling::push_hit;

/// What one poll costs, in nanoseconds, as part of a long round.
const POLL: u32 = 3;
/// What a round costs besides, in nanoseconds.
const ROUND: u32 = 40;
/// What an event costs more when a descriptor reports it instead of a poll, in nanoseconds.
const RETURN: u32 = 2000;
/// Idle handlers may take this share of a round: one part in ten.
const IDLE_SHARE: u32 = 10;
/// So many rounds between two checks.
const CHECK_EVERY: u32 = 256;

/// How many of `idle` handlers must leave a set of `all`.
fn surplus(all: usize, idle: usize) -> usize {
    let round = ROUND as usize + POLL as usize * all;
    let may_stay = round / (IDLE_SHARE as usize * POLL as usize);
    idle.saturating_sub(may_stay)
}

impl Inner {
    /// Whether it is time to look for idle handlers.
    #[inline]
    pub(crate) fn demotion_is_due(&self) -> bool {
        self.polled.rounds().wrapping_sub(self.idle_checked.get()) >= CHECK_EVERY
    }

    /// Demotes idle handlers. Hits of their last polls go to `ready`.
    #[cold]
    pub(crate) fn demote_idle(&self, cx: &Context, ready: &mut ReadyList) {
        self.idle_checked.set(self.polled.rounds());
        cx.assert_free();
        self.polled.demote_idle(
            RETURN / POLL,
            |token| self.comes_back(token),
            surplus,
            |token| push_hit(ready, token),
        );
    }

    /// Returns whether an event can bring a demoted handler back.
    fn comes_back(&self, token: Token) -> bool {
        let registry = self.registry.borrow();
        if registry.interest(token) != Some(Interest::NONE) {
            return true;
        }
        let polled = registry.get(token).and_then(|entry| entry.polled.as_ref());
        polled.is_some_and(|polled| polled.is_board)
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
            assert!(stay * 10 * POLL as usize <= ROUND as usize + all * POLL as usize);
        }
    }
}
