//! [`Kvm`]: the rule by which KVM polls before a virtual processor sleeps.
//!
//! It is `qemu-2020` with a least polling time: growing starts there, and shrinking below it stops polling.

use core::time::Duration;

use crate::growth::Growth;
use crate::params::saturating_ns;
use crate::{Effective, Iteration, PollParams, PollPolicy};

/// The first step, and the least polling time, in nanoseconds.
const START_NS: u64 = 10_000;

/// Grows after short waits and shrinks after long ones.
///
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, Kvm, PollParams, PollPolicy};
///
/// let us = Duration::from_micros;
/// let mut policy = Kvm::new(PollParams::up_to(us(200)));
/// let before = policy.budget();
/// // A short sleep: polling would have caught the event.
/// policy.observe(Iteration::new(us(30), us(0), true, true));
/// assert!(policy.budget() > before);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kvm {
    ns: u64,
    growth: Growth,
}

impl Kvm {
    /// Makes the policy, which does not poll at first. KVM's own settings are a maximum of 200 us, grow 2, shrink 2.
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        Self {
            ns: 0,
            growth: Growth::new(params),
        }
    }

    fn next(&self, block_ns: u64) -> u64 {
        let Growth { max_ns, grow, shrink } = self.growth;
        if block_ns <= self.ns {
            self.ns
        } else if block_ns > max_ns {
            let shrunk = shrink.divide(self.ns);
            if shrunk < START_NS { 0 } else { shrunk }
        } else if self.ns < max_ns && block_ns < max_ns {
            self.ns.saturating_mul(grow).max(START_NS).min(max_ns)
        } else {
            self.ns
        }
    }
}

impl PollPolicy for Kvm {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn budget(&self) -> Duration {
        Duration::from_nanos(self.ns)
    }

    fn observe(&mut self, seen: Iteration) {
        if self.growth.max_ns != 0 {
            self.ns = self.next(saturating_ns(seen.elapsed));
        }
    }

    fn reset(&mut self, params: PollParams) {
        *self = Self::new(params);
    }

    /// Does nothing: the cost of a sleep has no influence on this policy.
    fn reprice(&mut self, _: PollParams) {}

    fn effective(&self) -> Effective {
        self.growth.effective(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(params: PollParams, waits: &[(u64, u64)]) {
        let mut policy = Kvm::new(params);
        for (step, (block, expected)) in waits.iter().enumerate() {
            let elapsed = Duration::from_nanos(*block);
            policy.observe(Iteration::new(elapsed, Duration::ZERO, true, false));
            assert_eq!(
                policy.budget(),
                Duration::from_nanos(*expected),
                "{params:?}, step {step}: a wait of {block} ns"
            );
        }
    }

    #[test]
    fn it_grows_from_its_first_step_and_shrinks_to_it() {
        let params = PollParams::up_to(Duration::from_micros(200)).with_shrink(2);
        check(
            params,
            &[
                (1, 10_000),
                (10_000, 10_000),
                (10_001, 20_000),
                (199_999, 40_000),
                (200_001, 20_000),
                (200_001, 10_000),
                (200_001, 0),
                (200_001, 0),
                (200_000, 0),
                (5, 10_000),
            ],
        );
    }

    #[test]
    fn without_a_divisor_it_gives_up_at_once() {
        let params = PollParams::up_to(Duration::from_micros(15));
        check(params, &[(1, 10_000), (12_000, 15_000), (15_001, 0), (15_000, 0)]);
        check(PollParams::OFF, &[(0, 0), (1, 0), (99_999, 0)]);
    }

    #[test]
    fn a_wait_of_just_the_maximum_changes_nothing() {
        let params = PollParams::up_to(Duration::from_micros(200)).with_shrink(2);
        check(params, &[(1, 10_000), (10_001, 20_000), (200_000, 20_000)]);
    }
}
