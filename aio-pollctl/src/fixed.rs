//! [`Fixed`]: polls for the same time before every wait.

use core::time::Duration;

use crate::params::saturating_ns;
use crate::{Effective, Iteration, PollParams, PollPolicy};

/// Polls for a configured time before every wait.
///
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Fixed, PollParams, PollPolicy};
///
/// let us = Duration::from_micros;
/// let mut params = PollParams::up_to(us(100));
/// params.fixed = us(20);
/// assert_eq!(Fixed::new(params).budget(), us(20));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    time: Duration,
}

impl Fixed {
    /// Makes the policy with [`PollParams::fixed`] as its polling time, at most [`PollParams::max`].
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        let time = if params.fixed.is_zero() {
            params.max
        } else {
            params.fixed.min(params.max)
        };
        Self { time }
    }
}

impl PollPolicy for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }

    fn budget(&self) -> Duration {
        self.time
    }

    fn observe(&mut self, _: Iteration) {}

    fn reset(&mut self, params: PollParams) {
        *self = Self::new(params);
    }

    /// Does nothing: the cost of a sleep has no influence on this policy.
    fn reprice(&mut self, _: PollParams) {}

    fn effective(&self) -> Effective {
        Effective::new(self.name()).with_max_ns(saturating_ns(self.time))
    }
}
