//! [`Moment`]: a point of some clock's time.

use core::fmt;
use core::time::Duration;

/// A point in time: nanoseconds since the start of a clock. Moments of different clocks must not be compared.
///
/// Arithmetic saturates at [`ZERO`](Self::ZERO) and [`NEVER`](Self::NEVER); no duration is negative.
///
/// ```
/// use aio_timers::Moment;
/// use core::time::Duration;
///
/// let start = Moment::from_nanos(1_000);
/// let end = start.saturating_add(Duration::from_micros(2));
/// assert_eq!(end.since(start), Duration::from_micros(2));
/// assert_eq!(start.since(end), Duration::ZERO);
/// assert_eq!(end.saturating_add(Duration::MAX), Moment::NEVER);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The clock's start; as a deadline, always due.
    pub const ZERO: Self = Self(0);
    /// Later than any clock shows, 584 years after its start; as a deadline, never due.
    pub const NEVER: Self = Self(u64::MAX);

    /// Returns the moment `nanoseconds` after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Returns the nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the moment `duration` later, at most [`NEVER`](Self::NEVER).
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        let nanoseconds = duration.as_nanos();
        if nanoseconds > u64::MAX as u128 {
            Self::NEVER
        } else {
            Self(self.0.saturating_add(nanoseconds as u64))
        }
    }

    /// Returns the moment `duration` earlier, at least [`ZERO`](Self::ZERO).
    #[must_use]
    pub const fn saturating_sub(self, duration: Duration) -> Self {
        let nanoseconds = duration.as_nanos();
        if nanoseconds > u64::MAX as u128 {
            Self::ZERO
        } else {
            Self(self.0.saturating_sub(nanoseconds as u64))
        }
    }

    /// Returns the duration from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("never");
        }
        write!(f, "+{:?}", Duration::from_nanos(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t3_arithmetic_saturates_at_both_ends() {
        assert_eq!(Moment::from_nanos(5).saturating_add(Duration::MAX), Moment::NEVER);
        assert_eq!(
            Moment::NEVER.saturating_add(Duration::from_nanos(1)),
            Moment::NEVER
        );
        assert_eq!(Moment::from_nanos(5).saturating_sub(Duration::MAX), Moment::ZERO);
        assert_eq!(Moment::from_nanos(5).since(Moment::from_nanos(9)), Duration::ZERO);
        assert_eq!(
            Moment::from_nanos(9).since(Moment::from_nanos(5)),
            Duration::from_nanos(4)
        );
    }

    #[test]
    fn t3_durations_that_do_not_fit_saturate_too() {
        // In 64 bits this number of nanoseconds would wrap around.
        let too_long = Duration::from_secs(1 << 40);
        assert_eq!(Moment::from_nanos(5).saturating_add(too_long), Moment::NEVER);
        assert_eq!(
            Moment::from_nanos(u64::MAX - 1).saturating_sub(too_long),
            Moment::ZERO
        );
        let later = Moment::from_nanos(5).saturating_add(Duration::from_nanos(4));
        assert_eq!(later, Moment::from_nanos(9));
        assert_eq!(
            later.saturating_sub(Duration::from_nanos(4)),
            Moment::from_nanos(5)
        );
    }

    #[test]
    fn moments_print_as_durations() {
        let shown = alloc::format!("{:?} {:?}", Moment::from_nanos(1_500), Moment::NEVER);
        assert_eq!(shown, "+1.5\u{b5}s never");
    }
}
