//! [`KickShare`]: the number of kicks that a sleep costs the peers.
//!
//! The price of a sleep contains the kick that ends it (rule A11). But if a timer, a completion or another
//! thread ends a sleep, no peer has paid; and several peers may have kicked. Therefore the policy counts the
//! kicks that arrived because the loop slept.

/// The share of a sleep that costs one kick.
pub(crate) const ONE_KICK: u32 = 256;
/// The largest share of a sleep. Further kicks do not count.
pub(crate) const MOST_SHARE: u32 = 2 * ONE_KICK;
/// A sleep counts for one part in two to this power.
const WEIGHT: u32 = 6;
/// The step of the price, so that it is not computed again after each sleep.
const STEP: u32 = ONE_KICK / 16;
/// Bits after the point of the mean, so that it reaches its limits.
const POINT: u32 = 8;

/// The mean number of kicks of a sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KickShare {
    /// In parts of [`ONE_KICK`], times two to the power of [`POINT`].
    mean: u32,
    /// In parts of [`ONE_KICK`].
    applied: u32,
}

impl Default for KickShare {
    /// Starts with one kick for each sleep, until the sleeps show another number.
    fn default() -> Self {
        Self {
            mean: ONE_KICK << POINT,
            applied: ONE_KICK,
        }
    }
}

impl KickShare {
    /// Records a sleep that this number of kicks has ended. Returns the new share if it has changed by a
    /// step.
    pub(crate) fn slept(&mut self, kicks: u32) -> Option<u32> {
        let seen = (kicks.min(MOST_SHARE / ONE_KICK) * ONE_KICK) << POINT;
        self.mean = self.mean - (self.mean >> WEIGHT) + (seen >> WEIGHT);
        let share = (self.mean + (1 << (POINT - 1))) >> POINT;
        if share.abs_diff(self.applied) < STEP {
            return None;
        }
        self.applied = share;
        Some(share)
    }

    /// Returns the kicks of a sleep, in parts of [`ONE_KICK`].
    pub(crate) const fn share(&self) -> u32 {
        self.applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a11_the_share_follows_the_kicks_that_arrive() {
        let mut share = KickShare::default();
        for (kicks, expected) in [(1, 256), (0, 0), (1, 256), (2, 512), (u32::MAX, 512), (0, 0)] {
            for _ in 0..1000 {
                share.slept(kicks);
            }
            assert!(share.share().abs_diff(expected) < STEP, "{kicks}: {share:?}");
        }
    }

    #[test]
    fn a11_a_single_odd_sleep_changes_nothing() {
        let mut share = KickShare::default();
        for _ in 0..100 {
            assert_eq!(share.slept(0), None);
            assert!((0..64).all(|_| share.slept(1).is_none()));
        }
    }

    #[test]
    fn a11_every_second_sleep_with_a_kick_costs_half_of_one() {
        let mut share = KickShare::default();
        for kicks in [0, 1].into_iter().cycle().take(2000) {
            share.slept(kicks);
        }
        assert!(share.share().abs_diff(128) <= STEP, "{share:?}");
    }
}
