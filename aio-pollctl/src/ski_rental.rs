//! [`SkiRental`]: polling for just as long as a sleep costs.
//!
//! Whatever the waits are, this costs at most twice what somebody would pay who knows them in advance, and nothing that
//! knows neither the future nor the past does better without chance.

use core::time::Duration;

use crate::{Effective, Iteration, PollParams, PollPolicy};

/// Polls for the break-even time, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkiRental {
    params: PollParams,
    time: Duration,
}

impl SkiRental {
    /// From what a sleep costs.
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        let time = Duration::from_nanos(params.break_even_ns()).min(params.max);
        Self { params, time }
    }
}

impl PollPolicy for SkiRental {
    fn name(&self) -> &'static str {
        "ski-rental"
    }

    fn budget(&self) -> Duration {
        self.time
    }

    fn observe(&mut self, _: Iteration) {}

    fn reset(&mut self, params: PollParams) {
        *self = Self::new(params);
    }

    fn effective(&self) -> Effective {
        Effective::with_cost(self.name(), &self.params, self.time)
    }
}
