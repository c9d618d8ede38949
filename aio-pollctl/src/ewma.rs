//! [`Ewma`]: decides between polling and sleeping at once by a moving mean of the waits.

use core::time::Duration;

use crate::params::saturating_ns;
use crate::{Effective, Iteration, PollParams, PollPolicy};

/// A wait counts for one part in two to this power.
const WEIGHT: u32 = 3;
/// A longer wait counts as this many break-even times. A single long wait must not dominate the mean.
const CLIP: u64 = 8;

/// Polls for twice the break-even time while the mean wait is below it, else not at all.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Ewma, Iteration, PollParams, PollPolicy, WakeCost};
///
/// let us = Duration::from_micros;
/// let mut policy = Ewma::new(PollParams::unlimited().with_wake(WakeCost::of_total(us(10))));
/// assert_eq!(policy.budget(), us(20));
/// for _ in 0..3 {
///     policy.observe(Iteration::new(us(500), us(20), true, false));
/// }
/// assert_eq!(policy.budget(), us(0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ewma {
    params: PollParams,
    time: Duration,
    latency_ns: u64,
    break_even_ns: u64,
    mean_ns: u64,
}

impl Ewma {
    /// Makes the policy. It polls until the mean shows that it does not pay.
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        let break_even_ns = params.break_even_ns();
        Self {
            params,
            time: Duration::from_nanos(2 * break_even_ns).min(params.max),
            latency_ns: saturating_ns(params.wake_or_assumed().latency),
            break_even_ns,
            mean_ns: 0,
        }
    }
}

impl PollPolicy for Ewma {
    fn name(&self) -> &'static str {
        "ewma"
    }

    fn budget(&self) -> Duration {
        if self.mean_ns < self.break_even_ns {
            self.time
        } else {
            Duration::ZERO
        }
    }

    fn observe(&mut self, seen: Iteration) {
        let late = if seen.blocked && !seen.timed_out {
            self.latency_ns
        } else {
            0
        };
        let wait = saturating_ns(seen.elapsed)
            .saturating_sub(late)
            .min(CLIP * self.break_even_ns);
        self.mean_ns = self.mean_ns - (self.mean_ns >> WEIGHT) + (wait >> WEIGHT);
    }

    fn reset(&mut self, params: PollParams) {
        *self = Self::new(params);
    }

    fn reprice(&mut self, params: PollParams) {
        *self = Self {
            mean_ns: self.mean_ns,
            ..Self::new(params)
        };
    }

    fn effective(&self) -> Effective {
        Effective::with_cost(self.name(), &self.params, self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WakeCost;

    #[test]
    fn the_mean_decides() {
        let wake = WakeCost::of_total(Duration::from_micros(10));
        let mut policy = Ewma::new(PollParams::unlimited().with_wake(wake));
        let (on, off) = (Duration::from_micros(20), Duration::ZERO);
        assert_eq!(policy.budget(), on);
        let slept = |us| Iteration::new(Duration::from_micros(us), Duration::ZERO, true, false);
        for (number, (wait, expected)) in [
            (1_000_000, off), // counts as 80: mean 10
            (8, on),          // the latency is not part of the wait: mean 8.75
            (88, off),
            (88, off),
            (8, off),
        ]
        .into_iter()
        .enumerate()
        {
            policy.observe(slept(wait));
            assert_eq!(policy.budget(), expected, "wait {number} of {wait} us");
        }
        for _ in 0..20 {
            policy.observe(slept(8));
        }
        assert_eq!(policy.budget(), on);
    }

    #[test]
    fn a_wait_that_a_timer_ends_is_counted_in_full() {
        let wait = Duration::from_micros(15);
        let wake = WakeCost::of_total(Duration::from_micros(10));
        for (timed_out, polls) in [(true, false), (false, true)] {
            let mut policy = Ewma::new(PollParams::unlimited().with_wake(wake));
            for _ in 0..100 {
                let seen = Iteration::new(wait, Duration::ZERO, true, false);
                policy.observe(seen.with_deadline(wait, timed_out));
            }
            assert_eq!(!policy.budget().is_zero(), polls, "timed out: {timed_out}");
        }
    }
}
