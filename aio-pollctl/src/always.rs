//! [`Always`]: polls for the whole maximum.

use core::time::Duration;

use crate::{Effective, Iteration, PollParams, PollPolicy};

/// Polls for the whole maximum before each wait. Without a maximum the loop never sleeps, which needs a core of its own.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Always, Iteration, PollParams, PollPolicy};
///
/// let us = Duration::from_micros;
/// let mut policy = Always::new(PollParams::up_to(us(50)));
/// policy.observe(Iteration::new(us(900), us(50), true, false));
/// assert_eq!(policy.budget(), us(50));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Always {
    params: PollParams,
}

impl Always {
    /// Makes the policy with [`PollParams::max`] as its polling time.
    #[must_use]
    pub const fn new(params: PollParams) -> Self {
        Self { params }
    }
}

impl PollPolicy for Always {
    fn name(&self) -> &'static str {
        "always"
    }

    fn budget(&self) -> Duration {
        self.params.max
    }

    fn observe(&mut self, _: Iteration) {}

    fn reset(&mut self, params: PollParams) {
        *self = Self::new(params);
    }

    /// Does nothing: the cost of a sleep has no influence on this policy.
    fn reprice(&mut self, _: PollParams) {}

    fn effective(&self) -> Effective {
        let max_ns = u64::try_from(self.params.max.as_nanos()).unwrap_or(u64::MAX);
        Effective::new(self.name()).with_max_ns(max_ns)
    }
}
