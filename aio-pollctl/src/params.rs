//! [`PollParams`]: what a person sets.

use core::time::Duration;

/// How much a context may poll. The defaults are the original's: off, and 0 for whatever the policy's own choice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PollParams {
    /// The longest time to poll before one wait; zero turns polling off.
    pub max: Duration,
    /// What the polling time grows by, as a factor; 0 means 2.
    pub grow: u32,
    /// What the polling time shrinks by, as a divisor; 0 means: at once to zero.
    pub shrink: u32,
}

impl PollParams {
    /// No polling.
    pub const OFF: Self = Self {
        max: Duration::ZERO,
        grow: 0,
        shrink: 0,
    };

    /// Polling for up to `max` before each wait, with the policy's own choice of everything else.
    #[must_use]
    pub const fn up_to(max: Duration) -> Self {
        Self { max, ..Self::OFF }
    }

    /// The maximum in nanoseconds, at most `i64::MAX`.
    #[must_use]
    pub const fn max_ns(&self) -> u64 {
        saturating_ns(self.max)
    }
}

/// A duration in nanoseconds, at most `i64::MAX`, which is what the original can represent.
pub(crate) const fn saturating_ns(duration: Duration) -> u64 {
    let ns = duration.as_nanos();
    if ns > i64::MAX as u128 {
        i64::MAX as u64
    } else {
        ns as u64
    }
}
