//! A few last looks at the descriptors before the loop sleeps, as long as that pays.
//!
//! To sleep and to be woken costs from 5 to 50 us, a look 0.2 us. Whoever has just been served often comes back sooner than
//! that. So after an iteration with progress the loop looks again for up to [`LONGEST`] before it blocks: the rent is never
//! more than a fraction of the price. Looks that find nothing use up a credit; without credit only every
//! [`PROBE_EVERY`]th wait is preceded by looks, so that a loop whose peers are slow does not pay for them.
//!
//! This is not polling: no handler is asked, and the cost does not depend on how many there are.

use std::cell::Cell;
use std::time::Duration;

/// How long to go on looking before a wait: well under what a sleep costs.
pub(crate) const LONGEST: Duration = Duration::from_micros(2);
/// So many failures in a row are forgiven.
const CREDIT: u8 = 16;
const PROBE_EVERY: u8 = 32;

/// Whether to look once more.
#[derive(Debug)]
pub(crate) struct Glance {
    /// The last iteration made progress.
    served: Cell<bool>,
    credit: Cell<u8>,
    /// Waits since the last looks, while there is no credit.
    passed: Cell<u8>,
}

impl Default for Glance {
    fn default() -> Self {
        Self {
            served: Cell::new(false),
            credit: Cell::new(CREDIT),
            passed: Cell::new(0),
        }
    }
}

impl Glance {
    /// Notes whether an iteration made progress.
    pub(crate) fn served(&self, progress: bool) {
        self.served.set(progress);
    }

    /// Whether looks are worth it before the wait that is due.
    pub(crate) fn is_worth_it(&self) -> bool {
        if !self.served.get() {
            return false;
        }
        if self.credit.get() > 0 {
            return true;
        }
        let passed = self.passed.get() + 1;
        self.passed.set(passed % PROBE_EVERY);
        passed == PROBE_EVERY
    }

    /// Notes whether the looks before a wait have found something.
    pub(crate) fn found(&self, something: bool) {
        self.credit.set(if something {
            CREDIT
        } else {
            self.credit.get().saturating_sub(1)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_after_progress() {
        let glance = Glance::default();
        assert!(!glance.is_worth_it());
        glance.served(true);
        assert!(glance.is_worth_it());
        glance.served(false);
        assert!(!glance.is_worth_it());
    }

    #[test]
    fn failures_use_up_the_credit_and_one_success_restores_it() {
        let glance = Glance::default();
        glance.served(true);
        for _ in 0..CREDIT {
            assert!(glance.is_worth_it());
            glance.found(false);
        }
        let probes = (0..10 * usize::from(PROBE_EVERY)).filter(|_| glance.is_worth_it());
        assert_eq!(probes.count(), 10);
        glance.found(true);
        assert!(glance.is_worth_it() && glance.is_worth_it());
    }
}
