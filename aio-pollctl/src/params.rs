//! [`PollParams`], the settings of polling, and [`WakeCost`], the measured cost of a sleep.

use core::time::Duration;

/// The cost of a sleep, beyond the time until the event. Policies weigh polling against it.
///
/// ```
/// use core::time::Duration;
/// use aio_pollctl::WakeCost;
///
/// let us = Duration::from_micros;
/// let measured = WakeCost { latency: us(9), cpu: us(2), kick: us(3) };
/// assert!(!measured.is_unknown() && WakeCost::default().is_unknown());
/// assert_eq!(WakeCost::of_total(Duration::from_micros(10)), WakeCost::ASSUMED);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WakeCost {
    /// The time from the event to the first instruction of the sleeping thread.
    pub latency: Duration,
    /// The processor time for falling asleep and waking up.
    pub cpu: Duration,
    /// `poll-kick-ns`: the time that the peer spends on the kick that ends the sleep, instead of on its own work. A write of an
    /// eventfd takes a process 1 to 5 us if it has to wake a thread; the exit of a virtual machine takes 1 to 3 us more.
    pub kick: Duration,
}

impl WakeCost {
    /// The assumption without a measurement. It is rather low, because too high a value makes every idle wait expensive.
    pub const ASSUMED: Self = Self {
        latency: Duration::from_micros(8),
        cpu: Duration::from_micros(2),
        kick: Duration::ZERO,
    };

    /// Splits a total into four fifths latency and one fifth processor time, as is usual for sleeps of some
    /// microseconds. The kick is zero.
    #[must_use]
    pub const fn of_total(total: Duration) -> Self {
        let ns = saturating_ns(total);
        let cpu = ns / 5;
        Self {
            latency: Duration::from_nanos(ns - cpu),
            cpu: Duration::from_nanos(cpu),
            kick: Duration::ZERO,
        }
    }

    /// Sets [`kick`](Self::kick).
    #[must_use]
    pub const fn with_kick(self, kick: Duration) -> Self {
        Self { kick, ..self }
    }

    /// Returns whether the cost of the sleep itself is unknown: [`latency`](Self::latency) and
    /// [`cpu`](Self::cpu) are zero.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.latency.is_zero() && self.cpu.is_zero()
    }
}

/// The settings for the polling of a context.
///
/// Polling is off by default. A value of 0 selects the policy's own default; [`Effective`](crate::Effective) reports the result.
///
/// ```
/// # use std::time::Duration;
/// # use aio_pollctl::{PollParams, WakeCost};
/// let params = PollParams::unlimited()
///     .with_wake(WakeCost::of_total(Duration::from_micros(12)))
///     .with_cpu_price(200);
/// assert_eq!(params.break_even_ns(), 9600 / 2 + 2400);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PollParams {
    /// `poll-max-ns`: the longest polling time before one wait; zero turns polling off.
    pub max: Duration,
    /// `poll-grow`: the factor by which the polling time grows; 0 means 2.
    pub grow: u32,
    /// `poll-shrink`: the divisor by which the polling time shrinks; 0 means that it drops to zero at once.
    /// For `qemu-weighted`, 0 means 2.
    pub shrink: u32,
    /// `poll-weight`: an event counts for one part in two to this power; 0 means 3.
    pub weight: u32,
    /// The polling time of the policy `fixed`; zero means `max`.
    pub fixed: Duration,
    /// `poll-wake-ns`: the cost of a sleep; zero means measured, or [`WakeCost::ASSUMED`] without a measurement.
    pub wake: WakeCost,
    /// Whether policies may correct `wake` by their observations. Off for a configured value.
    pub wake_is_estimate: bool,
    /// `poll-cpu-price` in percent: the value of a nanosecond of processor time in nanoseconds of latency; 0 means 100.
    pub cpu_price: u32,
    /// `poll-cpu-max` in percent: the largest share of time for polling; 0 means 100.
    pub cpu_max: u32,
    /// Whether the thread has its core for itself, so that polling takes nothing from other threads. Polling is then never suspended by
    /// [`Contention`](crate::Contention).
    pub exclusive_core: bool,
}

/// The least break-even time: below it, reading the clock dominates the cost.
const LEAST_BREAK_EVEN_NS: u64 = 256;
/// The largest break-even time: sums of it never overflow.
const MOST_BREAK_EVEN_NS: u64 = 1 << 30;

impl PollParams {
    /// No polling.
    pub const OFF: Self = Self {
        max: Duration::ZERO,
        grow: 0,
        shrink: 0,
        weight: 0,
        fixed: Duration::ZERO,
        wake: WakeCost {
            latency: Duration::ZERO,
            cpu: Duration::ZERO,
            kick: Duration::ZERO,
        },
        wake_is_estimate: false,
        cpu_price: 0,
        cpu_max: 0,
        exclusive_core: false,
    };

    /// Returns settings for polling up to `max` before each wait, with the policy's defaults for all other
    /// values.
    #[must_use]
    pub const fn up_to(max: Duration) -> Self {
        Self { max, ..Self::OFF }
    }

    /// Returns settings for polling without a maximum.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self::up_to(Duration::MAX)
    }

    /// Sets [`grow`](Self::grow).
    #[must_use]
    pub const fn with_grow(self, grow: u32) -> Self {
        Self { grow, ..self }
    }

    /// Sets [`shrink`](Self::shrink).
    #[must_use]
    pub const fn with_shrink(self, shrink: u32) -> Self {
        Self { shrink, ..self }
    }

    /// Sets [`weight`](Self::weight).
    #[must_use]
    pub const fn with_weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// Sets [`fixed`](Self::fixed).
    #[must_use]
    pub const fn with_fixed(self, fixed: Duration) -> Self {
        Self { fixed, ..self }
    }

    /// Sets the cost of a sleep to a configured value. Policies do not correct it.
    #[must_use]
    pub const fn with_wake(self, wake: WakeCost) -> Self {
        Self {
            wake,
            wake_is_estimate: false,
            ..self
        }
    }

    /// Sets the cost of a sleep to a measured value. Policies correct it by later observations.
    #[must_use]
    pub const fn with_measured_wake(self, wake: WakeCost) -> Self {
        Self {
            wake,
            wake_is_estimate: true,
            ..self
        }
    }

    /// Sets the price of processor time, in percent of the price of latency.
    #[must_use]
    pub const fn with_cpu_price(self, cpu_price: u32) -> Self {
        Self { cpu_price, ..self }
    }

    /// Sets the largest share of time for polling, in percent.
    #[must_use]
    pub const fn with_cpu_max(self, cpu_max: u32) -> Self {
        Self { cpu_max, ..self }
    }

    /// Sets [`exclusive_core`](Self::exclusive_core).
    #[must_use]
    pub const fn with_exclusive_core(self, exclusive_core: bool) -> Self {
        Self {
            exclusive_core,
            ..self
        }
    }

    /// Returns the maximum in nanoseconds, at most `i64::MAX`.
    #[must_use]
    pub const fn max_ns(&self) -> u64 {
        saturating_ns(self.max)
    }

    /// Returns the cost of a sleep: the given value, or [`WakeCost::ASSUMED`].
    #[must_use]
    pub const fn wake_or_assumed(&self) -> WakeCost {
        if self.wake.is_unknown() {
            WakeCost::ASSUMED.with_kick(self.wake.kick)
        } else {
            self.wake
        }
    }

    /// Returns the polling time that costs as much as a sleep, in nanoseconds: latency and the peer's time
    /// for its kick at their price, plus processor time (rule A11). A microsecond of the peer is worth as
    /// much as a microsecond of latency.
    #[must_use]
    pub const fn break_even_ns(&self) -> u64 {
        let wake = self.wake_or_assumed();
        let waited = saturating_ns(wake.latency).saturating_add(saturating_ns(wake.kick));
        let latency = waited.saturating_mul(100) / self.price_or_default() as u64;
        let total = latency.saturating_add(saturating_ns(wake.cpu));
        if total < LEAST_BREAK_EVEN_NS {
            LEAST_BREAK_EVEN_NS
        } else if total > MOST_BREAK_EVEN_NS {
            MOST_BREAK_EVEN_NS
        } else {
            total
        }
    }

    /// Returns the largest share of time for polling in percent, from 1 to 100.
    #[must_use]
    pub const fn cpu_max_or_default(&self) -> u32 {
        match self.cpu_max {
            1..=100 => self.cpu_max,
            _ => 100,
        }
    }

    /// Returns the price of processor time in percent, never 0.
    #[must_use]
    pub const fn price_or_default(&self) -> u32 {
        or_default(self.cpu_price, 100)
    }
}

/// Replaces 0 by a default.
pub(crate) const fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

/// Converts a duration to nanoseconds, at most `i64::MAX`, the limit of the original.
pub(crate) const fn saturating_ns(duration: Duration) -> u64 {
    let ns = duration.as_nanos();
    if ns > i64::MAX as u128 {
        i64::MAX as u64
    } else {
        ns as u64
    }
}

/// Conversion to words, for a loop whose parameters other threads set.
impl PollParams {
    /// The number of words of [`to_words`](Self::to_words).
    pub const WORDS: usize = 8;

    /// Encodes the parameters in words, which can be stored and loaded one by one: any mixture of the words
    /// of two values decodes to parameters with a part of each. A time is in nanoseconds, at most 584 years.
    ///
    /// ```
    /// use core::time::Duration;
    /// use aio_pollctl::PollParams;
    ///
    /// let params = PollParams::up_to(Duration::from_micros(50));
    /// assert_eq!(PollParams::from_words(params.to_words()), params);
    /// ```
    #[must_use]
    pub fn to_words(self) -> [u64; Self::WORDS] {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            ns(self.max),
            ns(self.fixed),
            ns(self.wake.latency),
            ns(self.wake.cpu),
            ns(self.wake.kick),
            pair(self.grow, self.shrink),
            pair(self.weight, self.cpu_price),
            pair(
                self.cpu_max,
                u32::from(self.wake_is_estimate) | u32::from(self.exclusive_core) << 1,
            ),
        ]
    }

    /// Decodes the words of [`to_words`](Self::to_words). Any words are valid parameters.
    #[must_use]
    pub const fn from_words(
        [max, fixed, latency, cpu, kick, growth, weights, limits]: [u64; Self::WORDS],
    ) -> Self {
        const fn low(pair: u64) -> u32 {
            pair as u32
        }
        const fn high(pair: u64) -> u32 {
            (pair >> 32) as u32
        }
        Self {
            max: Duration::from_nanos(max),
            fixed: Duration::from_nanos(fixed),
            wake: WakeCost {
                latency: Duration::from_nanos(latency),
                cpu: Duration::from_nanos(cpu),
                kick: Duration::from_nanos(kick),
            },
            grow: low(growth),
            shrink: high(growth),
            weight: low(weights),
            cpu_price: high(weights),
            cpu_max: low(limits),
            wake_is_estimate: high(limits) & 1 != 0,
            exclusive_core: high(limits) & 2 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a6_parameters_are_decoded_as_they_were_encoded() {
        let us = Duration::from_micros;
        let mut all = PollParams::up_to(us(1))
            .with_grow(2)
            .with_shrink(3)
            .with_weight(4);
        all = all.with_fixed(us(5)).with_cpu_price(6).with_cpu_max(7);
        all.wake = WakeCost {
            latency: us(8),
            cpu: us(9),
            kick: us(10),
        };
        for (is_estimate, is_exclusive) in [(true, false), (true, true), (false, true), (false, false)] {
            all.wake_is_estimate = is_estimate;
            all.exclusive_core = is_exclusive;
            assert_eq!(PollParams::from_words(all.to_words()), all);
        }
        let longest = PollParams::up_to(Duration::MAX);
        assert_eq!(
            PollParams::from_words(longest.to_words()),
            PollParams::up_to(Duration::from_nanos(u64::MAX))
        );
    }

    fn wake(latency: u64, cpu: u64) -> WakeCost {
        WakeCost {
            latency: Duration::from_nanos(latency),
            cpu: Duration::from_nanos(cpu),
            kick: Duration::ZERO,
        }
    }

    #[test]
    fn a11_a_sleep_costs_what_the_peer_pays_for_its_kick_too() {
        let params =
            |kick| PollParams::unlimited().with_wake(wake(8000, 2000).with_kick(Duration::from_nanos(kick)));
        assert_eq!(params(3000).break_even_ns(), 13_000);
        assert_eq!(params(3000).with_cpu_price(200).break_even_ns(), 7500);
        assert_eq!(params(u64::MAX).break_even_ns(), 1 << 30);
        let assumed =
            PollParams::unlimited().with_wake(WakeCost::default().with_kick(Duration::from_micros(5)));
        assert_eq!(assumed.break_even_ns(), 15_000, "the sleep itself is assumed");
    }

    #[test]
    fn the_break_even_follows_the_price() {
        for (latency, cpu, price, expected) in [
            (8000, 2000, 0, 10_000),
            (8000, 2000, 100, 10_000),
            (8000, 2000, 200, 6000),
            (8000, 2000, 25, 34_000),
            (0, 0, 100, 10_000),
            (100, 0, 100, 256),
            (u64::MAX, u64::MAX, 1, 1 << 30),
        ] {
            let params = PollParams::unlimited()
                .with_wake(wake(latency, cpu))
                .with_cpu_price(price);
            assert_eq!(
                params.break_even_ns(),
                expected,
                "{latency} {cpu} at {price} percent"
            );
        }
    }

    #[test]
    fn a_total_is_shared_out_without_loss() {
        for total in [0, 1, 4, 5, 12_345] {
            let cost = WakeCost::of_total(Duration::from_nanos(total));
            assert_eq!(cost.latency + cost.cpu, Duration::from_nanos(total));
        }
        assert!(WakeCost::of_total(Duration::ZERO).is_unknown());
    }

    #[test]
    fn a_given_value_replaces_an_estimate() {
        let measured = PollParams::unlimited().with_measured_wake(wake(8000, 2000));
        assert!(measured.wake_is_estimate);
        let given = measured.with_wake(wake(5000, 1000));
        assert_eq!((given.wake, given.wake_is_estimate), (wake(5000, 1000), false));
    }
}
