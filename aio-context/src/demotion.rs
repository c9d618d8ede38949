//! Demotion: when idle handlers leave the polled set, and how many of them (rule A8). The set itself is `aio-pollset`'s.
//!
//! [`Pacing`](crate::pacing::Pacing) decides from costs when and how many. A handler without an interest never leaves, because no event could bring
//! it back.

use aio_backend::{Interest, ReadyList, Token};

use crate::Context;
use crate::context::Inner;
use crate::polling::push_hit;

impl Inner {
    /// Whether the next check for idle handlers is due.
    #[inline]
    pub(crate) fn demotion_is_due(&self) -> bool {
        self.pacing.is_idle_test_due(self.polled.rounds())
    }

    /// Demotes idle handlers. Hits of their last polls go to `ready`.
    #[cold]
    pub(crate) fn demote_idle(&self, cx: &Context, ready: &mut ReadyList) {
        let costs = self.pacing.test_idle(self.polled.rounds());
        cx.assert_free();
        self.polled.demote_idle(
            costs.idle_after(),
            |token| self.comes_back(token),
            |all, idle| costs.surplus(all, idle),
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
