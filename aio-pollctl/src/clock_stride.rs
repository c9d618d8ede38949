//! [`ClockStride`]: the number of polling rounds between two readings of the clock.

use core::time::Duration;

/// The largest number of rounds between two readings.
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
pub struct ClockStride {
    /// A power of two.
    rounds: u32,
    /// The duration of the last stride, and its number of rounds.
    last: Option<(Duration, u32)>,
}

impl Default for ClockStride {
    fn default() -> Self {
        Self::new()
    }
}

impl ClockStride {
    /// Makes a stride of one round.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rounds: 1,
            last: None,
        }
    }

    /// Returns the number of rounds until the next reading, from 1 to 64.
    #[inline]
    #[must_use]
    pub const fn rounds(self) -> u32 {
        self.rounds
    }

    /// Records the duration of the last stride, and adapts the next one.
    #[inline]
    pub fn took(&mut self, took: Duration) {
        self.last = (took <= LONG).then_some((took, self.rounds));
        if took < SHORT {
            self.rounds = (self.rounds * 2).min(MOST);
        } else if took > LONG {
            self.rounds = (self.rounds / 2).max(1);
        }
    }

    /// Returns the time that this number of rounds takes, at the pace of the last stride: at most 1.5 us for
    /// a part of the present one. `None` in the first stride, and after one that was so long that something
    /// else must have happened in it.
    #[inline]
    pub(crate) fn estimated_ns(self, rounds: u32) -> Option<u64> {
        let (took, of) = self.last?;
        Some((u64::from(took.subsec_nanos()) * u64::from(rounds)) >> of.trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_follow_the_cost_of_a_round() {
        let after = |rounds: u32, took: Duration| {
            let mut stride = ClockStride { rounds, last: None };
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

    #[test]
    fn a_part_of_a_stride_takes_as_long_as_the_last_one_tells() {
        let mut stride = ClockStride::new();
        assert_eq!(stride.estimated_ns(1), None, "nothing is known yet");
        for (took_ns, rounds, expected_ns) in [(130, 2, 260), (220, 1, 110), (400, 8, 800), (640, 5, 400)] {
            stride.took(Duration::from_nanos(took_ns));
            assert_eq!(stride.estimated_ns(rounds), Some(expected_ns), "{stride:?}");
            assert_eq!(stride.estimated_ns(0), Some(0));
        }
        stride.took(Duration::from_millis(3));
        assert_eq!(stride.estimated_ns(1), None, "the thread did not run");
        assert_eq!(stride.rounds(), 4);
    }

    #[test]
    fn an_estimate_is_no_longer_than_the_longest_typical_stride() {
        for took_ns in 0..=1500 {
            for rounds in [1, 2, 4, 8, 16, 32, 64] {
                let mut stride = ClockStride { rounds, last: None };
                stride.took(Duration::from_nanos(took_ns));
                let longest = stride.estimated_ns(stride.rounds()).unwrap();
                assert!(longest <= 1500, "{rounds} rounds in {took_ns} ns: {longest} ns");
            }
        }
    }
}
