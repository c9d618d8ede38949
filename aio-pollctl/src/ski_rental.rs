//! [`SkiRental`]: polls for exactly the break-even time.
//!
//! For any waits this costs at most twice the clairvoyant optimum. No deterministic policy that has no
//! information about past or future waits has a better bound.

use core::time::Duration;

use crate::{Effective, Iteration, PollParams, PollPolicy};

/// Polls for the break-even time before every wait.
///
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{PollParams, PollPolicy, SkiRental, WakeCost};
///
/// // The price of a sleep: as much polling costs as much as the sleep it may save.
/// let params = PollParams::unlimited().with_wake(WakeCost::of_total(Duration::from_micros(10)));
/// let budget = SkiRental::new(params).budget();
/// assert_eq!(budget.as_nanos(), u128::from(params.break_even_ns()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkiRental {
    params: PollParams,
    time: Duration,
}

impl SkiRental {
    /// Makes the policy from the cost of a sleep.
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
