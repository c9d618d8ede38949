//! [`ClockStride`]: how many polling rounds pass between two readings of the clock.

use core::time::Duration;

/// The most rounds between two readings.
const MOST: u32 = 64;
/// If a stride takes less time than this, reading the clock costs too much of it.
const SHORT: Duration = Duration::from_nanos(500);
/// If a stride takes more time than this, polling exceeds its budget by too much.
const LONG: Duration = Duration::from_nanos(1500);

/// The number of polling rounds between two readings of the clock.
///
/// It is large enough to make a reading cheap, and small enough to exceed a polling budget by at most about 1.5 us.
///
/// ```
/// # use std::time::Duration;
/// # use aio_pollctl::ClockStride;
/// let mut stride = ClockStride::new();
/// assert_eq!(stride.rounds(), 1);
/// stride.took(Duration::from_nanos(30));
/// assert_eq!(stride.rounds(), 2, "rounds are short: read the clock less often");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStride(u32);

impl Default for ClockStride {
    fn default() -> Self {
        Self::new()
    }
}

impl ClockStride {
    /// A stride of one round.
    #[must_use]
    pub const fn new() -> Self {
        Self(1)
    }

    /// Rounds until the next reading, from 1 to 64.
    #[inline]
    #[must_use]
    pub const fn rounds(self) -> u32 {
        self.0
    }

    /// Records the duration of the last stride, and adapts the next one.
    #[inline]
    pub fn took(&mut self, took: Duration) {
        if took < SHORT {
            self.0 = (self.0 * 2).min(MOST);
        } else if took > LONG {
            self.0 = (self.0 / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_follow_the_cost_of_a_round() {
        let after = |rounds: u32, took: Duration| {
            let mut stride = ClockStride(rounds);
            stride.took(took);
            stride.rounds()
        };
        assert_eq!(after(1, Duration::from_nanos(30)), 2);
        assert_eq!(after(64, Duration::from_nanos(30)), 64);
        assert_eq!(after(8, Duration::from_micros(2)), 4);
        assert_eq!(after(1, Duration::from_micros(2)), 1);
        for took in [500, 900, 1500] {
            assert_eq!(after(16, Duration::from_nanos(took)), 16);
        }
    }
}
