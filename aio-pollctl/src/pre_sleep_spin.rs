//! [`PreSleepSpin`]: decides whether to check the descriptors for a moment before a sleep.

use core::time::Duration;

use crate::PollParams;
use crate::params::saturating_ns;

/// The number of spins in a row that may find nothing.
const CREDIT: u32 = 16;
/// Without credit, one wait in this many is preceded by a spin.
const PROBE_EVERY: u8 = 32;
/// The longest spin, for any cost of a sleep.
const CAP_NS: u64 = 100_000;

/// Decides whether a loop checks its descriptors for a moment before it sleeps.
///
/// A sleep and a wake-up cost 5 to 50 us, and cost the peer that ends the sleep its kick; a check costs 0.2
/// us. A peer often sends its next request soon after it was served. Therefore the loop may check for a while
/// instead of sleeping at once. Its credit, in time, decides: a spin that finds an event after `t` saves
/// `longest - t`, a spin in vain loses [`longest`](Self::longest). The credit is at most 16 times the longest
/// spin. Without credit, only every 32nd wait is preceded by a spin. A loop with slow peers thus pays almost
/// nothing, and one with quick peers seldom sleeps.
///
/// The spin is not polling: it calls no `poll` callback, and its cost does not depend on the number of handlers.
///
/// ```
/// # use aio_pollctl::PreSleepSpin;
/// let mut spin = PreSleepSpin::new();
/// assert!(!spin.is_worth_it(), "nothing was served yet");
/// spin.served(true);
/// if spin.is_worth_it() {
///     // Check the descriptors for up to `spin.longest()`. Nothing was found:
///     spin.missed();
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreSleepSpin {
    /// Set if the last iteration made progress.
    served: bool,
    /// The number of waits since the last spin, while there is no credit.
    passed: u8,
    longest_ns: u32,
    /// The part of the credit that is used up.
    used_ns: u32,
}

impl Default for PreSleepSpin {
    fn default() -> Self {
        Self::new()
    }
}

impl PreSleepSpin {
    /// The longest spin if the cost of a sleep is unknown.
    pub const LONGEST: Duration = Duration::from_micros(2);

    /// Makes one with full credit for spins of up to [`LONGEST`](Self::LONGEST), before the first iteration
    /// with progress.
    #[must_use]
    pub const fn new() -> Self {
        Self::up_to(Self::LONGEST)
    }

    /// Makes one with full credit for spins of up to `longest`, at most 100 us.
    #[must_use]
    pub const fn up_to(longest: Duration) -> Self {
        let longest_ns = saturating_ns(longest);
        let longest_ns = if longest_ns < CAP_NS { longest_ns } else { CAP_NS } as u32;
        Self {
            served: false,
            passed: 0,
            longest_ns,
            used_ns: 0,
        }
    }

    /// Makes one for these parameters, with spins up to the [break-even time](PollParams::break_even_ns) if
    /// the cost of a sleep is known, else up to [`LONGEST`](Self::LONGEST). It is for waits before which the
    /// loop has not polled.
    #[must_use]
    pub const fn of(params: &PollParams) -> Self {
        if params.wake.is_unknown() {
            Self::new()
        } else {
            Self::up_to(Duration::from_nanos(params.break_even_ns()))
        }
    }

    /// Adopts another cost of a sleep. The number of spins for which there is credit stays.
    pub const fn reprice(&mut self, params: &PollParams) {
        let longest_ns = Self::of(params).longest_ns;
        let used_ns = self.used_ns as u64 * longest_ns as u64;
        self.used_ns = match used_ns.checked_div(self.longest_ns as u64) {
            Some(used_ns) => used_ns as u32,
            None => 0,
        };
        self.longest_ns = longest_ns;
    }

    /// Returns the longest spin.
    #[must_use]
    pub const fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns as u64)
    }

    /// Records whether an iteration made progress.
    #[inline]
    pub const fn served(&mut self, progress: bool) {
        self.served = progress;
    }

    /// Returns whether to spin before the next wait. Call it once for each wait, because it counts the waits without credit.
    #[inline]
    pub const fn is_worth_it(&mut self) -> bool {
        if !self.served {
            return false;
        }
        if self.has_credit() {
            return true;
        }
        self.passed = (self.passed + 1) % PROBE_EVERY;
        self.passed == 0
    }

    /// Returns whether a spin is worth it and no probe.
    #[inline]
    #[must_use]
    pub const fn is_promising(&self) -> bool {
        self.served && self.has_credit()
    }

    /// Records a spin that found an event after this time.
    #[inline]
    pub const fn found(&mut self, after: Duration) {
        let after_ns = saturating_ns(after);
        if after_ns < self.longest_ns as u64 {
            self.earn(self.longest_ns - after_ns as u32);
        }
    }

    /// Records a spin whose first check found an event.
    #[inline]
    pub const fn found_at_once(&mut self) {
        self.earn(self.longest_ns);
    }

    /// Records a spin that found nothing.
    #[inline]
    pub const fn missed(&mut self) {
        let used = self.used_ns + self.longest_ns;
        let most = CREDIT * self.longest_ns;
        self.used_ns = if used < most { used } else { most };
    }

    #[inline]
    const fn earn(&mut self, ns: u32) {
        self.used_ns = self.used_ns.saturating_sub(ns);
    }

    #[inline]
    const fn has_credit(&self) -> bool {
        self.used_ns < CREDIT * self.longest_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WakeCost;

    fn ready(longest: Duration) -> PreSleepSpin {
        let mut spin = PreSleepSpin::up_to(longest);
        spin.served(true);
        spin
    }

    /// Returns the number of spins in vain until there is no credit.
    fn credit_of(mut spin: PreSleepSpin) -> u32 {
        let mut spins = 0;
        while spin.is_promising() {
            spin.missed();
            spins += 1;
        }
        spins
    }

    #[test]
    fn only_after_progress() {
        let mut spin = PreSleepSpin::new();
        assert!(!spin.is_worth_it());
        spin.served(true);
        assert!(spin.is_worth_it());
        spin.served(false);
        assert!(!spin.is_worth_it());
    }

    #[test]
    fn spins_in_vain_use_up_the_credit_and_finds_earn_what_they_save() {
        let us = Duration::from_micros;
        let mut spin = ready(us(10));
        assert_eq!(credit_of(spin), CREDIT);
        for _ in 0..CREDIT {
            assert!(spin.is_worth_it());
            spin.missed();
        }
        let probes = (0..10 * usize::from(PROBE_EVERY)).filter(|_| spin.is_worth_it());
        assert_eq!(probes.count(), 10);
        spin.found(us(9));
        assert_eq!(
            credit_of(spin),
            1,
            "it saved a tenth, and one spin is made for it"
        );
        spin.found(us(1));
        spin.found_at_once();
        assert_eq!(credit_of(spin), 2);
        (0..100).for_each(|_| spin.found_at_once());
        assert_eq!(credit_of(spin), CREDIT);
        spin.missed();
        spin.found(us(25));
        assert_eq!(
            credit_of(spin),
            CREDIT - 1,
            "a find that came too late saves nothing"
        );
    }

    #[test]
    fn spins_that_find_less_than_they_cost_end() {
        // Half of the spins find an event at 60 % of their time: they save 2 us on average, and lose 5.
        let mut spin = ready(Duration::from_micros(10));
        for _ in 0..10 * CREDIT {
            spin.found(Duration::from_micros(6));
            spin.missed();
        }
        assert!(!spin.is_promising());
    }

    #[test]
    fn a_probe_that_fails_leaves_the_next_one_as_far_away() {
        let mut spin = ready(PreSleepSpin::LONGEST);
        (0..CREDIT).for_each(|_| spin.missed());
        for _ in 0..3 {
            let before = (0..).take_while(|_| !spin.is_worth_it()).count();
            assert_eq!(before, usize::from(PROBE_EVERY) - 1);
            spin.missed();
        }
    }

    #[test]
    fn a12_another_cost_of_a_sleep_keeps_the_credit() {
        let of = |us| PollParams::OFF.with_wake(WakeCost::of_total(Duration::from_micros(us)));
        for (before, after) in [(10, 20), (20, 10), (10, 1000), (0, 10)] {
            let mut spin = PreSleepSpin::of(&of(before));
            spin.served(true);
            (0..6).for_each(|_| spin.missed());
            spin.reprice(&of(after));
            assert_eq!(spin.longest(), PreSleepSpin::of(&of(after)).longest());
            assert_eq!(credit_of(spin), CREDIT - 6, "{before} to {after}");
        }
    }

    #[test]
    fn a11_without_polling_a_spin_is_as_long_as_a_sleep_is_dear() {
        let wake = WakeCost::of_total(Duration::from_micros(12));
        let longest = |params: PollParams| PreSleepSpin::of(&params).longest();
        assert_eq!(longest(PollParams::OFF), PreSleepSpin::LONGEST);
        assert_eq!(
            longest(PollParams::OFF.with_wake(wake)),
            Duration::from_micros(12)
        );
        let dear = WakeCost::of_total(Duration::from_secs(1));
        assert_eq!(
            longest(PollParams::OFF.with_wake(dear)),
            Duration::from_micros(100)
        );
    }
}
