//! Demotion: when idle handlers leave the polled set, and how many of them (rule A8). The set itself is `aio-pollset`'s.
//!
//! [`IdleCosts`] decides from costs when and how many. A handler without an interest never leaves, because no event could bring
//! it back.

use aio_backend::{Interest, ReadyList, Token};
use aio_pollctl::IdleCosts;

use crate::Context;
use crate::context::Inner;
use crate::handler::Entry;
use crate::polling::push_hit;

/// What idle handlers may cost.
const COSTS: IdleCosts = IdleCosts::TYPICAL;

impl Inner {
    /// Whether the next check for idle handlers is due.
    #[inline]
    pub(crate) fn demotion_is_due(&self) -> bool {
        COSTS.is_check_due(self.polled.rounds().wrapping_sub(self.idle_checked.get()))
    }

    /// Demotes idle handlers. Hits of their last polls go to `ready`.
    #[cold]
    pub(crate) fn demote_idle(&self, cx: &Context, ready: &mut ReadyList) {
        self.idle_checked.set(self.polled.rounds());
        cx.assert_free();
        self.polled.demote_idle(
            COSTS.idle_after(),
            |token| self.comes_back(token),
            |all, idle| COSTS.surplus(all, idle),
            |token| push_hit(ready, token),
        );
    }

    /// Returns whether an event, or a wake, can bring a demoted handler back.
    fn comes_back(&self, token: Token) -> bool {
        let registry = self.registry.borrow();
        if registry.interest(token) != Some(Interest::NONE) {
            return true;
        }
        registry.get(token).is_some_and(Entry::is_undescribed)
    }
}
