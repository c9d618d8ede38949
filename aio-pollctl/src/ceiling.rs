//! [`Ceiling`]: limits the share of time spent polling (`poll-cpu-max`).
//!
//! It is a token bucket: elapsed time adds its share, polling removes the time that it takes, and no budget
//! exceeds the content.

use core::time::Duration;

use crate::params::saturating_ns;
use crate::{Iteration, PollParams};

/// The capacity of the bucket: the most polling at once after a pause.
const DEPTH_NS: u64 = 1_000_000;
/// The number of fractional bits of shares and tokens.
const POINT: u32 = 16;

/// Limits polling in any time T to its share of T plus one millisecond plus one round of polling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ceiling {
    percent: u32,
    share: u64,
    tokens: u64,
}

impl Ceiling {
    /// Makes the limit; `None` if polling may take all the time.
    pub(crate) fn new(params: &PollParams) -> Option<Self> {
        let percent = params.cpu_max;
        (percent > 0 && percent < 100).then(|| Self {
            percent,
            share: (u64::from(percent) << POINT) / 100,
            tokens: DEPTH_NS << POINT,
        })
    }

    pub(crate) const fn percent(&self) -> u32 {
        self.percent
    }

    /// Returns the polling time that is allowed now.
    pub(crate) const fn allowance(&self) -> Duration {
        Duration::from_nanos(self.tokens >> POINT)
    }

    pub(crate) fn observe(&mut self, seen: &Iteration) {
        // A second fills the bucket in any case, and keeps the product in range.
        let passed = saturating_ns(seen.elapsed.saturating_add(seen.busy)).min(1 << 30);
        let spent = saturating_ns(seen.spun).min(1 << 40) << POINT;
        self.tokens = (self.tokens + passed * self.share)
            .saturating_sub(spent)
            .min(DEPTH_NS << POINT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn ceiling(percent: u32) -> Ceiling {
        Ceiling::new(&PollParams::unlimited().with_cpu_max(percent)).unwrap()
    }

    #[test]
    fn without_a_limit_there_is_none() {
        for percent in [0, 100, 1000] {
            assert_eq!(Ceiling::new(&PollParams::unlimited().with_cpu_max(percent)), None);
        }
    }

    #[test]
    fn polling_for_ever_is_cut_to_the_share() {
        for percent in [1, 10, 50, 99] {
            let mut ceiling = ceiling(percent);
            let (mut spun, mut total) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..100_000 {
                // 30 us to the next event, 10 us of latency, 5 us of work
                let budget = ceiling.allowance().min(30 * US);
                let (elapsed, blocked) = if budget < 30 * US {
                    (40 * US, true)
                } else {
                    (30 * US, false)
                };
                ceiling.observe(&Iteration::new(elapsed, budget, blocked, !blocked).with_busy(5 * US));
                spun += budget;
                total += elapsed + 5 * US;
            }
            let limit = total * percent / 100 + 1000 * US;
            assert!(spun <= limit, "{percent} %: {spun:?} of {total:?}");
            let reachable = (limit - 1000 * US).min(100_000 * 30 * US * 9 / 10);
            assert!(
                spun >= reachable * 98 / 100 || percent > 60,
                "{percent} %: {spun:?} of {total:?}"
            );
        }
    }

    #[test]
    fn absurd_times_do_no_harm() {
        let mut ceiling = ceiling(50);
        ceiling.observe(&Iteration::new(
            Duration::from_secs(u64::MAX / 2),
            Duration::ZERO,
            true,
            false,
        ));
        assert_eq!(ceiling.allowance(), 1000 * US);
        ceiling.observe(&Iteration::new(US, Duration::MAX, false, true));
        assert_eq!(ceiling.allowance(), Duration::ZERO);
    }
}
