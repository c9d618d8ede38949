//! [`Ladder`]: the polling times from which a learning policy chooses, and its units.
//!
//! The unit is 1/1024 of the break-even time, so that the sums of the policy fit into 16 bits.

use core::time::Duration;

use crate::PollParams;
use crate::params::saturating_ns;

/// The number of polling times: one vector register of 16-bit numbers.
pub(crate) const LEVELS: usize = 8;
/// The break-even time in units.
pub(crate) const UNIT: u32 = 1024;
/// Longer waits count as this many break-even times.
const CLIP: u64 = 8;
/// The polling times in 1/1000 of the break-even time. A time above it is sometimes right: if waits average half of it, three times
/// of it leave a quarter of a percent of the waits to a sleep.
const STEPS: [u64; LEVELS] = [0, 125, 250, 420, 700, 1000, 1600, 3200];

/// Values computed once, so that a wait needs no division.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ladder {
    /// The polling times as durations.
    pub(crate) times: [Duration; LEVELS],
    /// The polling times in units.
    pub(crate) units: [i16; LEVELS],
    /// The index of the first time that is not below the break-even time, or below the maximum if that is lower.
    pub(crate) safe: u8,
    pub(crate) break_even_ns: u64,
    /// The policy polls for timers nearer than this.
    pub(crate) near: Duration,
    clip_ns: u64,
    /// 2^34 / break-even.
    factor: u64,
}

impl Ladder {
    pub(crate) fn new(params: &PollParams) -> Self {
        let break_even_ns = params.break_even_ns();
        let max_ns = params.max_ns();
        let near_ns = break_even_ns.min(max_ns);
        let level_ns = STEPS.map(|step| (step * break_even_ns / 1000).min(max_ns));
        let safe = level_ns.iter().position(|ns| *ns >= near_ns).unwrap_or(0);
        Self {
            times: level_ns.map(Duration::from_nanos),
            units: level_ns.map(|ns| (ns * u64::from(UNIT) / break_even_ns) as i16),
            safe: safe as u8,
            break_even_ns,
            near: Duration::from_nanos(near_ns),
            clip_ns: CLIP * break_even_ns,
            factor: (1 << 34) / break_even_ns,
        }
    }

    /// Converts nanoseconds to units; the result is at most 8 break-even times.
    pub(crate) fn to_units(&self, ns: u64) -> i16 {
        ((ns.min(self.clip_ns) * self.factor) >> 24) as i16
    }

    pub(crate) fn longest_ns(&self) -> u64 {
        saturating_ns(self.times[LEVELS - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WakeCost;

    fn ladder(break_even_ns: u64, max_ns: u64) -> Ladder {
        let wake = WakeCost::of_total(Duration::from_nanos(break_even_ns));
        Ladder::new(&PollParams::up_to(Duration::from_nanos(max_ns)).with_wake(wake))
    }

    #[test]
    fn rungs_are_times_and_units() {
        let ladder = ladder(10_000, u64::MAX);
        let ns = [0, 1250, 2500, 4200, 7000, 10_000, 16_000, 32_000];
        assert_eq!(ladder.times, ns.map(Duration::from_nanos));
        assert_eq!(ladder.units, [0, 128, 256, 430, 716, 1024, 1638, 3276]);
        assert_eq!((ladder.safe, ladder.near), (5, Duration::from_micros(10)));
    }

    #[test]
    fn the_maximum_is_a_rung() {
        let below = ladder(50_000, 32_768);
        assert_eq!(below.times[4..], [32_768; 4].map(Duration::from_nanos));
        assert_eq!((below.safe, below.near), (4, Duration::from_nanos(32_768)));
        let off = ladder(50_000, 0);
        assert_eq!((off.times, off.safe), ([Duration::ZERO; LEVELS], 0));
    }

    #[test]
    fn units_are_clipped_and_never_overflow() {
        for break_even in [256, 257, 1000, 10_000, 1 << 30] {
            let ladder = ladder(break_even, u64::MAX);
            assert_eq!(ladder.to_units(0), 0);
            for ns in [8 * break_even, 9 * break_even, u64::MAX] {
                assert!((8190..=8192).contains(&ladder.to_units(ns)), "{break_even}: {ns}");
            }
            assert!(
                (1022..=1024).contains(&ladder.to_units(break_even)),
                "{break_even}"
            );
        }
    }
}
