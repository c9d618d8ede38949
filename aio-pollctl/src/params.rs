//! [`PollParams`]: what a person sets, and [`WakeCost`]: what the machine says.

use core::time::Duration;

/// What a sleep costs, beyond the time until the event: the one figure that polling is weighed against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WakeCost {
    /// From the event to the first instruction of a thread that slept.
    pub latency: Duration,
    /// What falling asleep and waking up take from the processor.
    pub cpu: Duration,
}

impl WakeCost {
    /// Assumed if nobody has measured it. Rather too little than too much: too much makes every idle wait expensive.
    pub const ASSUMED: Self = Self {
        latency: Duration::from_micros(8),
        cpu: Duration::from_micros(2),
    };

    /// A total, of which four fifths are latency: the usual share for a sleep of some microseconds.
    #[must_use]
    pub const fn of_total(total: Duration) -> Self {
        let ns = saturating_ns(total);
        let cpu = ns / 5;
        Self {
            latency: Duration::from_nanos(ns - cpu),
            cpu: Duration::from_nanos(cpu),
        }
    }

    /// Nobody has measured it.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.latency.is_zero() && self.cpu.is_zero()
    }
}

/// How much a context may poll. The defaults are the original's: off, and 0 for whatever the policy's own choice is
/// ([`Effective`](crate::Effective) tells which that was).
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
    /// `poll-max-ns`: the longest time to poll before one wait; zero turns polling off.
    pub max: Duration,
    /// `poll-grow`: what the polling time grows by, as a factor; 0 means 2.
    pub grow: u32,
    /// `poll-shrink`: what the polling time shrinks by, as a divisor; 0 means: at once to zero.
    pub shrink: u32,
    /// `poll-weight`: an event counts for one part in two to this power; 0 means 3.
    pub weight: u32,
    /// How long the policy `fixed` polls; zero means `max`.
    pub fixed: Duration,
    /// `poll-wake-ns`: what a sleep costs; zero means measured, or else [`WakeCost::ASSUMED`].
    pub wake: WakeCost,
    /// Whether policies may correct `wake` by what they see. Off for a figure that a person has given.
    pub wake_is_estimate: bool,
    /// `poll-cpu-price` in percent: what a nanosecond of processor time is worth in nanoseconds of latency; 0 means 100.
    pub cpu_price: u32,
    /// `poll-cpu-max` in percent: the share of the time that may be spent polling; 0 means 100.
    pub cpu_max: u32,
}

/// The break-even time is at least this: below it the clock itself is what costs.
const LEAST_BREAK_EVEN_NS: u64 = 256;
/// And at most this, so that sums of it never overflow.
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
        },
        wake_is_estimate: false,
        cpu_price: 0,
        cpu_max: 0,
    };

    /// Polling for up to `max` before each wait, with the policy's own choice of everything else.
    #[must_use]
    pub const fn up_to(max: Duration) -> Self {
        Self { max, ..Self::OFF }
    }

    /// Polling for as long as the policy thinks right.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self::up_to(Duration::MAX)
    }

    /// Another factor to grow by.
    #[must_use]
    pub const fn with_grow(self, grow: u32) -> Self {
        Self { grow, ..self }
    }

    /// Another divisor to shrink by.
    #[must_use]
    pub const fn with_shrink(self, shrink: u32) -> Self {
        Self { shrink, ..self }
    }

    /// Another weight of an event.
    #[must_use]
    pub const fn with_weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// Another time for the policy `fixed`.
    #[must_use]
    pub const fn with_fixed(self, fixed: Duration) -> Self {
        Self { fixed, ..self }
    }

    /// What a sleep costs, as given by a person: taken as it is.
    #[must_use]
    pub const fn with_wake(self, wake: WakeCost) -> Self {
        Self {
            wake,
            wake_is_estimate: false,
            ..self
        }
    }

    /// What a sleep costs, as measured at start-up: corrected by what is seen later.
    #[must_use]
    pub const fn with_measured_wake(self, wake: WakeCost) -> Self {
        Self {
            wake,
            wake_is_estimate: true,
            ..self
        }
    }

    /// Another price of processor time, in percent of the price of latency.
    #[must_use]
    pub const fn with_cpu_price(self, cpu_price: u32) -> Self {
        Self { cpu_price, ..self }
    }

    /// A ceiling to the share of the time spent polling, in percent.
    #[must_use]
    pub const fn with_cpu_max(self, cpu_max: u32) -> Self {
        Self { cpu_max, ..self }
    }

    /// The maximum in nanoseconds, at most `i64::MAX`.
    #[must_use]
    pub const fn max_ns(&self) -> u64 {
        saturating_ns(self.max)
    }

    /// What a sleep costs: the given figure, or the assumed one.
    #[must_use]
    pub const fn wake_or_assumed(&self) -> WakeCost {
        if self.wake.is_unknown() {
            WakeCost::ASSUMED
        } else {
            self.wake
        }
    }

    /// The polling time that costs just as much as a sleep, in nanoseconds: latency at its price, plus processor time.
    #[must_use]
    pub const fn break_even_ns(&self) -> u64 {
        let wake = self.wake_or_assumed();
        let latency = saturating_ns(wake.latency).saturating_mul(100) / self.price_or_default() as u64;
        let total = latency.saturating_add(saturating_ns(wake.cpu));
        if total < LEAST_BREAK_EVEN_NS {
            LEAST_BREAK_EVEN_NS
        } else if total > MOST_BREAK_EVEN_NS {
            MOST_BREAK_EVEN_NS
        } else {
            total
        }
    }

    /// The price of processor time in percent: never 0.
    #[must_use]
    pub const fn price_or_default(&self) -> u32 {
        or_default(self.cpu_price, 100)
    }
}

/// What 0 stands for.
pub(crate) const fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wake(latency: u64, cpu: u64) -> WakeCost {
        WakeCost {
            latency: Duration::from_nanos(latency),
            cpu: Duration::from_nanos(cpu),
        }
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
    fn what_a_person_gives_replaces_an_estimate() {
        let measured = PollParams::unlimited().with_measured_wake(wake(8000, 2000));
        assert!(measured.wake_is_estimate);
        let given = measured.with_wake(wake(5000, 1000));
        assert_eq!((given.wake, given.wake_is_estimate), (wake(5000, 1000), false));
    }
}
