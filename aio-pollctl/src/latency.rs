//! [`Latency`]: the wake-up latency of a sleep, as given or as corrected by observations.
//!
//! The time from the last poll to the wake-up is the remaining wait plus the latency. Its minimum over some
//! sleeps is the least latency, if one of the events came soon. It can therefore only lower an estimate.
//! Latencies vary; a typical one is 1.5 times the minimum.

use crate::PollParams;
use crate::params::saturating_ns;

/// The number of sleeps between two corrections.
const WINDOW: u8 = 64;
/// A sleep shorter than the estimate divided by two to this power was not a sleep.
const NONE: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Latency {
    ns: u64,
    /// The value as given or measured at start-up, the upper limit.
    given_ns: u64,
    is_estimate: bool,
    least_ns: u64,
    sleeps: u8,
}

impl Latency {
    pub(crate) fn new(params: &PollParams) -> Self {
        let ns = saturating_ns(params.wake_or_assumed().latency);
        Self {
            ns,
            given_ns: ns,
            is_estimate: params.wake_is_estimate || params.wake.is_unknown(),
            least_ns: u64::MAX,
            sleeps: 0,
        }
    }

    pub(crate) const fn ns(&self) -> u64 {
        self.ns
    }

    /// Returns the latency of a sleep that took `slept_ns`. `None` if that was too short for a sleep.
    pub(crate) fn of_sleep(&mut self, slept_ns: u64) -> Option<u64> {
        if self.is_estimate {
            self.record(slept_ns);
        }
        (slept_ns >= self.ns / 2).then_some(self.ns)
    }

    fn record(&mut self, slept_ns: u64) {
        if slept_ns < self.given_ns >> NONE {
            return;
        }
        self.least_ns = self.least_ns.min(slept_ns);
        self.sleeps += 1;
        if self.sleeps == WINDOW {
            self.ns = (self.least_ns + self.least_ns / 2).min(self.given_ns);
            (self.least_ns, self.sleeps) = (u64::MAX, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WakeCost;
    use core::time::Duration;

    fn cost(latency_ns: u64) -> WakeCost {
        WakeCost {
            latency: Duration::from_nanos(latency_ns),
            cpu: Duration::ZERO,
            kick: Duration::ZERO,
        }
    }

    #[test]
    fn a_given_latency_stays() {
        let mut latency = Latency::new(&PollParams::unlimited().with_wake(cost(8000)));
        for _ in 0..200 {
            assert_eq!(latency.of_sleep(5000), Some(8000));
        }
        assert_eq!(
            (latency.of_sleep(4000), latency.of_sleep(3999)),
            (Some(8000), None)
        );
    }

    #[test]
    fn an_estimate_follows_the_shortest_sleep_down_and_up_again() {
        let mut latency = Latency::new(&PollParams::unlimited().with_measured_wake(cost(8000)));
        let mut window = |shortest: u64, others: u64| {
            for sleep in 0..WINDOW {
                latency.of_sleep(if sleep == 7 { shortest } else { others });
            }
            latency.ns()
        };
        assert_eq!(window(3000, 50_000), 4500);
        assert_eq!(window(5000, 7000), 7500);
        assert_eq!(window(1000, 50_000), 1500, "the shortest that counts");
        assert_eq!(
            window(20_000, 50_000),
            8000,
            "never above the measurement with short sleeps"
        );
        assert_eq!(window(999, 50_000), 8000, "so short a sleep has been none");
    }

    #[test]
    fn one_that_is_far_too_high_is_corrected_all_the_same() {
        let mut latency = Latency::new(&PollParams::unlimited().with_measured_wake(cost(40_000)));
        for _ in 0..WINDOW {
            assert_eq!(latency.of_sleep(10_000).filter(|ns| *ns == 40_000), None);
        }
        assert_eq!(latency.of_sleep(10_000), Some(15_000));
    }
}
