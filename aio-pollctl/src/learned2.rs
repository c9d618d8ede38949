//! [`Learned2`]: as `learned`, but looks back two waits.

use core::time::Duration;

use crate::rcl::{Counts, Rcl};
use crate::{Effective, Iteration, PollParams, PollPolicy};

/// The regret-clamped ladder: 256 banks, chosen by the last two waits, a slower mean, and
/// the handler. It finds
/// longer patterns, and learns more slowly.
#[derive(Clone, Debug)]
pub struct Learned2(pub(crate) Rcl<256>);

impl Learned2 {
    /// Polls for the break-even time until it knows better.
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        Self(Rcl::new(params))
    }

    /// What it has counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

impl PollPolicy for Learned2 {
    fn name(&self) -> &'static str {
        "learned-2"
    }

    fn budget(&self) -> Duration {
        self.0.budget()
    }

    fn budget_until(&self, deadline: Option<Duration>) -> Duration {
        self.0.budget_until(deadline)
    }

    fn observe(&mut self, seen: Iteration) {
        self.0.observe(&seen);
    }

    fn reset(&mut self, params: PollParams) {
        *self = Self::new(params);
    }

    fn effective(&self) -> Effective {
        self.0.effective(self.name())
    }
}
