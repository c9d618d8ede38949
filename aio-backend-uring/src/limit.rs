//! [`Limit`]: the end of a wait.

use std::time::{Duration, Instant};

/// The longest timeout that is passed to the kernel. A longer wait is split into several.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The end of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// At once.
    Now,
    /// At this moment.
    At(Instant),
    /// Never: the wait has no limit.
    Never,
}

impl Limit {
    /// Returns the limit of a wait that starts now. There is none if the moment is beyond the range of the
    /// clock.
    #[inline]
    pub(crate) fn after(timeout: Option<Duration>, now: impl FnOnce() -> Instant) -> Self {
        match timeout {
            None => Self::Never,
            Some(Duration::ZERO) => Self::Now,
            Some(timeout) => now().checked_add(timeout).map_or(Self::Never, Self::At),
        }
    }

    /// Returns the limit, or [`Limit::Now`] if it has passed.
    pub(crate) fn rest(self, now: impl FnOnce() -> Instant) -> Self {
        match self {
            Self::At(at) if at <= now() => Self::Now,
            limit => limit,
        }
    }

    /// Returns the timeout for the kernel (`None`: no limit).
    pub(crate) fn timeout(self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        match self {
            Self::Now => Some(Duration::ZERO),
            Self::At(at) => Some(at.saturating_duration_since(now()).min(LONGEST)),
            Self::Never => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_a_limit_is_a_moment_and_passes() {
        let start = Instant::now();
        let later = |millis| start + Duration::from_millis(millis);
        let limit = Limit::after(Some(Duration::from_millis(5)), || start);
        assert_eq!(limit, Limit::At(later(5)));
        assert_eq!(limit.rest(|| later(4)), limit);
        assert_eq!(limit.rest(|| later(5)), Limit::Now);
        assert_eq!(limit.timeout(|| later(2)), Some(Duration::from_millis(3)));
        assert_eq!(limit.timeout(|| later(9)), Some(Duration::ZERO));
    }

    #[test]
    fn b2_no_timeout_is_beyond_the_range_of_the_kernel() {
        let start = Instant::now();
        assert_eq!(Limit::after(Some(Duration::MAX), || start), Limit::Never);
        assert_eq!(Limit::after(None, || start), Limit::Never);
        assert_eq!(Limit::Never.timeout(|| start), None);
        let year = Limit::after(Some(365 * LONGEST), || start);
        assert_eq!(year.timeout(|| start), Some(LONGEST));
    }

    #[test]
    fn b2_a_timeout_of_zero_reads_no_clock() {
        let clock = || panic!("the clock was read");
        assert_eq!(Limit::after(Some(Duration::ZERO), clock), Limit::Now);
        assert_eq!(Limit::Now.rest(clock), Limit::Now);
        assert_eq!(Limit::Never.rest(clock), Limit::Never);
    }
}
