//! [`Qemu2020`]: the controller of QEMU's event loop of 2020, with the same result for every sequence of waits.
//!
//! The formula is rule A6. The constants are those of `aio_poll()` of 2020.

use core::time::Duration;

use crate::growth::Growth;
use crate::params::saturating_ns;
use crate::{Effective, Iteration, PollParams, PollPolicy};

/// Grows the polling time while waits are within the maximum, and shrinks it after a longer one.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, PollParams, PollPolicy, Qemu2020};
///
/// let us = Duration::from_micros;
/// let mut policy = Qemu2020::new(PollParams::up_to(us(32)));
/// for (wait, budget) in [(us(10), us(4)), (us(10), us(8)), (us(10), us(16)), (us(10), us(16)), (us(99), us(0))] {
///     policy.observe(Iteration::new(wait, us(0), true, false));
///     assert_eq!(policy.budget(), budget);
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu2020 {
    ns: u64,
    growth: Growth,
}

impl Qemu2020 {
    /// Makes the policy, which does not poll at first.
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        Self {
            ns: 0,
            growth: Growth::new(params),
        }
    }
}

impl PollPolicy for Qemu2020 {
    fn name(&self) -> &'static str {
        "qemu-2020"
    }

    fn budget(&self) -> Duration {
        Duration::from_nanos(self.ns)
    }

    fn observe(&mut self, seen: Iteration) {
        if self.growth.max_ns != 0 {
            self.ns = self.growth.next(self.ns, saturating_ns(seen.elapsed));
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

    fn params(max: u64, grow: u32, shrink: u32) -> PollParams {
        PollParams::up_to(Duration::from_nanos(max))
            .with_grow(grow)
            .with_shrink(shrink)
    }

    fn see(policy: &mut Qemu2020, block_ns: u64) -> u64 {
        let elapsed = Duration::from_nanos(block_ns);
        policy.observe(Iteration::new(elapsed, Duration::ZERO, true, false));
        u64::try_from(policy.budget().as_nanos()).unwrap()
    }

    /// Checks pairs of a wait and the polling time after it, with the parameters (max, grow, shrink).
    fn check(parameters: (u64, u32, u32), waits: &[(u64, u64)]) {
        let mut policy = Qemu2020::new(params(parameters.0, parameters.1, parameters.2));
        for (step, (block, expected)) in waits.iter().enumerate() {
            assert_eq!(
                see(&mut policy, *block),
                *expected,
                "{parameters:?}, step {step}: a wait of {block} ns"
            );
        }
    }

    #[test]
    fn a6_the_values_an_io_thread_can_have() {
        let wait = 32767;
        check(
            (32768, 2, 0),
            &[
                (wait, 4000),
                (wait, 8000),
                (wait, 16000),
                (wait, 32000),
                (wait, 32768),
                (wait, 32768),
            ],
        );
    }

    #[test]
    fn a6_every_transition() {
        // Not longer than the polling time: keep, on the boundary too.
        check(
            (32768, 2, 0),
            &[(1, 4000), (4000, 4000), (4001, 8000), (8000, 8000), (0, 8000)],
        );
        // Longer than the maximum: drops to zero without a divisor, and grows again from zero.
        check((32768, 2, 0), &[(1, 4000), (32769, 0), (32769, 0), (1, 4000)]);
        // Exactly the maximum: neither grows nor shrinks.
        check((32768, 2, 0), &[(32768, 0), (1, 4000), (32768, 4000)]);
        // At the maximum already: keep.
        check((4000, 2, 0), &[(1, 4000), (3999, 4000), (4000, 4000), (4001, 0)]);
    }

    #[test]
    fn a6_a_small_maximum_clamps_the_first_step() {
        check((1000, 2, 0), &[(999, 1000), (1000, 1000), (1001, 0), (1000, 0)]);
    }

    #[test]
    fn a6_growing_by_one_is_stuck_and_by_zero_means_two() {
        check((32768, 1, 0), &[(1, 4000), (5000, 4000), (30000, 4000)]);
        check((32768, 0, 0), &[(1, 4000), (5000, 8000)]);
    }

    #[test]
    fn a6_shrinking_leaves_residues_and_by_one_never_shrinks() {
        let long = 99999;
        check(
            (32768, 2, 2),
            &[(1, 4000), (long, 2000), (long, 1000), (1001, 2000)],
        );
        check((32768, 2, 1), &[(1, 4000), (long, 4000)]);
        check(
            (32768, 3, 4000),
            &[(1, 4000), (long, 1), (2, 3), (long, 0), (long, 0)],
        );
    }

    #[test]
    fn a6_absurd_factors_saturate() {
        let most = i64::MAX.unsigned_abs();
        let mut policy = Qemu2020::new(PollParams::unlimited().with_grow(u32::MAX));
        assert_eq!(see(&mut policy, 1), 4000);
        for _ in 0..5 {
            see(&mut policy, most - 1);
        }
        assert_eq!(policy.budget(), Duration::from_nanos(most));
        assert_eq!(
            see(&mut policy, u64::MAX),
            most,
            "a wait longer than the maximum can say is just the maximum"
        );
    }

    #[test]
    fn a1_off_means_off() {
        let mut policy = Qemu2020::new(PollParams::OFF);
        for block in [0, 1, 5000, u64::MAX] {
            assert_eq!(see(&mut policy, block), 0);
        }
    }

    #[test]
    fn a6_setting_parameters_starts_anew() {
        let mut policy = Qemu2020::new(params(32768, 2, 0));
        assert_eq!(see(&mut policy, 1), 4000);
        policy.reset(params(64000, 3, 2));
        assert_eq!(policy.budget(), Duration::ZERO);
        assert_eq!((see(&mut policy, 1), see(&mut policy, 5000)), (4000, 12000));
    }

    /// The rule in another form: a table of conditions in the order in which the original tests them.
    fn by_the_table(ns: i128, block: i128, max: i128, grow: i128, shrink: i128) -> i128 {
        let grow = if grow == 0 { 2 } else { grow };
        let rows: [(bool, i128); 4] = [
            (block <= ns, ns),
            (block > max, if shrink == 0 { 0 } else { ns / shrink }),
            (
                ns < max && block < max,
                (if ns == 0 { 4000 } else { ns * grow }).min(max),
            ),
            (true, ns),
        ];
        rows.iter()
            .find(|(applies, _)| *applies)
            .map(|(_, result)| *result)
            .unwrap()
    }

    #[test]
    fn a6_a_million_random_waits_agree_with_the_table() {
        let seed = crate::tests::seed();
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..1000 {
            let max = [1, 999, 4000, 32768, 200_000, 1 << 40][rng.usize(0..6)];
            let (grow, shrink) = (rng.u32(0..4), rng.u32(0..4));
            let mut policy = Qemu2020::new(params(max, grow, shrink));
            let mut ns = 0;
            for _ in 0..1000 {
                let near = [u64::try_from(ns).unwrap(), max];
                let rng_shift = rng.u32(19..63);
                let block = match rng.u32(0..3) {
                    0 => near[rng.usize(0..2)].saturating_add_signed(rng.i64(-1..=1)),
                    1 => rng.u64(0..max.saturating_mul(2).max(2)),
                    _ => rng.u64(..) >> rng_shift,
                };
                ns = by_the_table(ns, block.into(), max.into(), grow.into(), shrink.into());
                assert_eq!(i128::from(see(&mut policy, block)), ns, "seed {seed}");
                assert!(policy.ns <= max);
            }
        }
    }
}
