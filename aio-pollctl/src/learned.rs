//! [`Learned`]: chooses the polling time that would have been best lately after a wait like the last one.

use core::time::Duration;

use crate::rcl::{Counts, Rcl};
use crate::{Effective, Iteration, PollParams, PollPolicy};

/// The regret-clamped ladder: 64 banks, chosen by the last wait, a fast mean of waits, and
/// the handler that had the last event. The default for real work.
#[derive(Clone, Debug)]
pub struct Learned(pub(crate) Rcl<64>);

impl Learned {
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

impl PollPolicy for Learned {
    fn name(&self) -> &'static str {
        "learned"
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
