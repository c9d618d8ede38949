//! [`PreSleepSpin`]: whether to check the descriptors for a moment before a sleep.

use core::time::Duration;

/// The number of spins in a row that may find nothing.
const CREDIT: u8 = 16;
/// Without credit, one wait in this many is preceded by a spin.
const PROBE_EVERY: u8 = 32;

/// Decides whether a loop checks its descriptors for a moment before it sleeps.
///
/// A sleep and a wake-up cost 5 to 50 us, a check costs 0.2 us. A peer often sends its next request within that time after it was
/// served. After an iteration with progress the loop therefore checks for up to [2 us](Self::LONGEST), well under the cost of a
/// sleep. A spin without events uses one of 16 credits; a spin with events restores all of them. Without credit, only every 32nd
/// wait is preceded by a spin, so a loop with slow peers pays almost nothing.
///
/// The spin is not polling: it calls no `poll` callback, and its cost does not depend on the number of handlers.
///
/// ```
/// # use aio_pollctl::PreSleepSpin;
/// let mut spin = PreSleepSpin::new();
/// assert!(!spin.is_worth_it(), "nothing was served yet");
/// spin.served(true);
/// if spin.is_worth_it() {
///     let found = false; // check the descriptors for PreSleepSpin::LONGEST
///     spin.found(found);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreSleepSpin {
    /// The last iteration made progress.
    served: bool,
    credit: u8,
    /// Waits since the last spin, while there is no credit.
    passed: u8,
}

impl Default for PreSleepSpin {
    fn default() -> Self {
        Self::new()
    }
}

impl PreSleepSpin {
    /// The longest spin.
    pub const LONGEST: Duration = Duration::from_micros(2);

    /// Full credit, before the first iteration with progress.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            served: false,
            credit: CREDIT,
            passed: 0,
        }
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
        if self.credit > 0 {
            return true;
        }
        self.passed = (self.passed + 1) % PROBE_EVERY;
        self.passed == 0
    }

    /// Returns whether a spin is worth it and no probe.
    #[inline]
    #[must_use]
    pub const fn is_promising(&self) -> bool {
        self.served && self.credit > 0
    }

    /// Records whether a spin found events.
    #[inline]
    pub const fn found(&mut self, something: bool) {
        self.credit = if something {
            CREDIT
        } else {
            self.credit.saturating_sub(1)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn failures_use_up_the_credit_and_one_success_restores_it() {
        let mut spin = PreSleepSpin::new();
        spin.served(true);
        for _ in 0..CREDIT {
            assert!(spin.is_worth_it());
            spin.found(false);
        }
        let probes = (0..10 * usize::from(PROBE_EVERY)).filter(|_| spin.is_worth_it());
        assert_eq!(probes.count(), 10);
        spin.found(true);
        for _ in 0..CREDIT {
            assert!(spin.is_worth_it());
            spin.found(false);
        }
        assert!(!spin.is_worth_it());
    }

    #[test]
    fn a_probe_that_fails_leaves_the_next_one_as_far_away() {
        let mut spin = PreSleepSpin::new();
        spin.served(true);
        (0..CREDIT).for_each(|_| spin.found(false));
        for _ in 0..3 {
            let before = (0..).take_while(|_| !spin.is_worth_it()).count();
            assert_eq!(before, usize::from(PROBE_EVERY) - 1);
            spin.found(false);
        }
    }
}
