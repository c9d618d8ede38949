//! [`Never`]: never polls.

use core::time::Duration;

use crate::{Effective, Iteration, PollParams, PollPolicy};

/// Never polls: the loop sleeps at once.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, Never, PollPolicy};
///
/// let mut policy = Never;
/// policy.observe(Iteration::new(Duration::from_micros(1), Duration::ZERO, true, false));
/// assert_eq!(policy.budget(), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Never;

impl PollPolicy for Never {
    fn name(&self) -> &'static str {
        "never"
    }

    fn budget(&self) -> Duration {
        Duration::ZERO
    }

    fn observe(&mut self, _: Iteration) {}

    fn reset(&mut self, _: PollParams) {}

    /// Does nothing: the cost of a sleep has no influence on this policy.
    fn reprice(&mut self, _: PollParams) {}

    fn effective(&self) -> Effective {
        Effective::new(self.name()).with_max_ns(0)
    }
}
