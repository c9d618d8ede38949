//! The [`PollPolicy`] contract, and what a policy is told.

use core::fmt;
use core::time::Duration;

use crate::PollParams;

/// What happened in one iteration that was allowed to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Iteration {
    /// How long there was nothing to do: polling and waiting together, without any handler's own time.
    pub elapsed: Duration,
    /// The part of it that was spent polling.
    pub spun: Duration,
    /// Whether the loop slept.
    pub blocked: bool,
    /// Whether polling found something.
    pub hit: bool,
}

impl Iteration {
    /// What happened.
    #[must_use]
    pub const fn new(elapsed: Duration, spun: Duration, blocked: bool, hit: bool) -> Self {
        Self {
            elapsed,
            spun,
            blocked,
            hit,
        }
    }
}

/// Decides how long to poll.
///
/// Implementations MUST ensure that the budget never exceeds [`PollParams::max`], and is zero when that is zero.
pub trait PollPolicy: fmt::Debug {
    /// A short name, as options spell it.
    fn name(&self) -> &'static str;

    /// How long the next wait may be spent polling.
    fn budget(&self) -> Duration;

    /// The same, when it is known that something is due after `timeout`: never more than that.
    fn budget_until(&self, timeout: Option<Duration>) -> Duration {
        timeout.map_or(self.budget(), |timeout| self.budget().min(timeout))
    }

    /// Learns from an iteration.
    fn observe(&mut self, seen: Iteration);

    /// Starts anew with other parameters.
    fn reset(&mut self, params: PollParams);
}
