//! [`RegretLadder`]: the policies `learned` and `learned-2`, which choose the polling time that would have been best lately after
//! waits like the last ones.

use core::time::Duration;

use crate::rcl::{Counts, Rcl};
use crate::{Effective, Iteration, PollParams, PollPolicy};

/// The regret-clamped ladder with `BANKS` banks of figures, which are chosen by the last waits, a moving mean of waits, and
/// the handler that had the last event.
///
/// There are two: [`Learned`] looks back one wait, [`Learned2`] two.
#[derive(Clone, Debug)]
pub struct RegretLadder<const BANKS: usize>(Rcl<BANKS>);

/// The policy `learned`: looks back one wait, with a fast mean. The default.
pub type Learned = RegretLadder<64>;

/// The policy `learned-2`: looks back two waits, with a slower mean. It finds longer patterns, and learns more slowly.
pub type Learned2 = RegretLadder<256>;

impl<const BANKS: usize> RegretLadder<BANKS> {
    const NAME: &'static str = if BANKS == 64 { "learned" } else { "learned-2" };

    /// Polls for the break-even time until it knows better. `BANKS` is 64 or 256; others do not compile.
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        const {
            assert!(
                BANKS == 64 || BANKS == 256,
                "64 banks look back one wait, 256 two"
            )
        };
        Self(Rcl::new(params))
    }

    /// What it has counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

impl<const BANKS: usize> PollPolicy for RegretLadder<BANKS> {
    fn name(&self) -> &'static str {
        Self::NAME
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
