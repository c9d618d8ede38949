//! [`Ladder`]: the polling times from which a learning policy chooses, and its units.
//!
//! The unit is 1/1024 of the break-even time, so that the sums of the policy fit into 16 bits.

use core::time::Duration;

use crate::PollParams;
use crate::kick_share::{MOST_SHARE, ONE_KICK};
use crate::params::saturating_ns;

/// The number of polling times: one vector register of 16-bit numbers.
pub(crate) const LEVELS: usize = 8;
/// The break-even time in units.
pub(crate) const UNIT: u32 = 1024;
/// The factor of the clamp, times 1024.
pub(crate) const BOUND: u64 = 9 * 256;
/// Longer waits count as this many break-even times.
const CLIP: u64 = 8;
/// The polling times in 1/1000 of the break-even time. A time above it is sometimes right: if waits average half of it, three times
/// of it leave a quarter of a percent of the waits to a sleep.
const STEPS: [u64; LEVELS] = [0, 125, 250, 420, 700, 1000, 1600, 3200];

/// Values that are computed at set-up, and again when the share of sleeps that a kick ends has changed, so
/// that a wait needs no division.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ladder {
    /// The polling times as durations.
    pub(crate) times: [Duration; LEVELS],
    /// The polling times in units.
    pub(crate) units: [i16; LEVELS],
    /// The index of the first time that is not below the break-even time, or below the maximum if that is lower.
    pub(crate) safe: u8,
    /// The cost of a sleep in units: [`UNIT`] if each sleep costs one kick.
    pub(crate) sleep: i16,
    /// The part of it that is latency.
    pub(crate) latency: i32,
    /// The value of a unit of latency in processor time, times 256.
    worth: i32,
    /// The factor of the clamp, times 1024.
    pub(crate) bound: i64,
    /// The distance below which the policy polls for timers.
    pub(crate) near: Duration,
    /// The break-even time without a kick, and the addition for each kick.
    base_ns: u64,
    kick_ns: u64,
    kick_units: u32,
    max_ns: u64,
    max_units: u32,
    /// [`BOUND`] / 2 / maximum, times 2^32; 0 without polling.
    bound_factor: u64,
    clip_ns: u64,
    /// 2^34 / break-even.
    factor: u64,
}

impl Ladder {
    /// Makes the ladder for sleeps that cost one kick each.
    pub(crate) fn new(params: &PollParams) -> Self {
        let break_even_ns = params.break_even_ns();
        let mut without_kick = *params;
        without_kick.wake.kick = Duration::ZERO;
        let base_ns = without_kick.break_even_ns().min(break_even_ns);
        let (kick_ns, max_ns) = (break_even_ns - base_ns, params.max_ns());
        let (price, latency_ns) = (
            params.price_or_default(),
            saturating_ns(params.wake_or_assumed().latency),
        );
        let latency_ns = latency_ns.saturating_mul(100) / u64::from(price);
        let most_ns = STEPS[LEVELS - 1] * break_even_ns * u64::from(MOST_SHARE / ONE_KICK) / 1000;
        let mut ladder = Self {
            times: [Duration::ZERO; LEVELS],
            units: [0; LEVELS],
            safe: 0,
            sleep: UNIT as i16,
            latency: (latency_ns.min(break_even_ns) * u64::from(UNIT) / break_even_ns) as i32,
            worth: (25_600 / price.min(25_600)) as i32,
            bound: BOUND as i64,
            near: Duration::ZERO,
            base_ns,
            kick_ns,
            kick_units: (kick_ns * u64::from(UNIT) / break_even_ns) as u32,
            max_ns,
            max_units: (max_ns.min(most_ns) * u64::from(UNIT) / break_even_ns) as u32,
            bound_factor: (BOUND << 31).checked_div(max_ns).unwrap_or(0),
            clip_ns: CLIP * break_even_ns,
            factor: (1 << 34) / break_even_ns,
        };
        ladder.price(ONE_KICK);
        ladder
    }

    /// Sets the kicks that a sleep costs, in parts of [`ONE_KICK`], at most [`MOST_SHARE`].
    pub(crate) fn price(&mut self, share: u32) {
        let share = share.min(MOST_SHARE);
        let break_even_ns = self.base_ns + ((self.kick_ns * u64::from(share)) >> ONE_KICK.ilog2());
        let sleep = UNIT - self.kick_units + ((self.kick_units * share) >> ONE_KICK.ilog2());
        let near_ns = break_even_ns.min(self.max_ns);
        for (level, step) in STEPS.into_iter().enumerate() {
            let ns = (step * break_even_ns / 1000).min(self.max_ns);
            self.times[level] = Duration::from_nanos(ns);
            self.units[level] = (step as u32 * sleep / 1000).min(self.max_units) as i16;
        }
        let is_safe = |time: &Duration| saturating_ns(*time) >= near_ns;
        self.safe = self.times.iter().position(is_safe).unwrap_or(0) as u8;
        self.sleep = sleep as i16;
        self.near = Duration::from_nanos(near_ns);
        self.bound = if near_ns == break_even_ns || self.max_ns == 0 {
            BOUND as i64
        } else {
            let part = u128::from(break_even_ns) * u128::from(self.bound_factor);
            (u128::from(BOUND / 2) + ((part + u128::from(u32::MAX)) >> 32)) as i64
        };
    }

    /// Converts nanoseconds to units; the result is at most 8 break-even times.
    pub(crate) fn to_units(&self, ns: u64) -> i16 {
        ((ns.min(self.clip_ns) * self.factor) >> 24) as i16
    }

    /// Returns the value of this number of units of latency in processor time.
    pub(crate) const fn of_latency(&self, units: i32) -> i32 {
        (units * self.worth) >> 8
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
        assert_eq!(below.units[4..], [671; 4]);
        let off = ladder(50_000, 0);
        assert_eq!((off.times, off.safe), ([Duration::ZERO; LEVELS], 0));
    }

    #[test]
    fn a11_the_rungs_follow_the_price_of_a_sleep() {
        let wake = WakeCost::of_total(Duration::from_nanos(8192)).with_kick(Duration::from_nanos(2048));
        let mut ladder = Ladder::new(&PollParams::unlimited().with_wake(wake));
        assert_eq!((ladder.sleep, ladder.near), (1024, Duration::from_nanos(10_240)));
        let nominal = ladder.clone();
        // Without a kick a sleep costs 8192 ns, with two 12,288.
        for (share, sleep, near) in [(0, 820, 8192), (512, 1228, 12_288), (u32::MAX, 1228, 12_288)] {
            ladder.price(share);
            assert_eq!((ladder.sleep, ladder.near), (sleep, Duration::from_nanos(near)));
            assert_eq!(ladder.times[usize::from(ladder.safe)], ladder.near);
            for (time, units) in ladder.times.iter().zip(ladder.units) {
                let expected = ladder.to_units(saturating_ns(*time));
                assert!((units - expected).abs() <= 4, "{share}: {time:?}");
            }
        }
        ladder.price(ONE_KICK);
        assert_eq!(ladder, nominal);
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
