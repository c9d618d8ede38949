//! [`State`]: the values on which the delivery of an event depends, in one word.

use aio_backend::{Interest, Readiness};

/// The number of exclusions, the interest, the readiness that was recorded and not taken (within the
/// interest), whether the value is special, and, in the upper half, the number of times that it was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(u64);

const INTEREST: u32 = 16;
const PENDING: u32 = 24;
const BYTE: u64 = 0xff;
/// The highest bit, beside the recorded readiness.
const SPECIAL: u64 = 0x80 << PENDING;
const EXCLUSIONS: u64 = 0xffff;
const VERSION: u32 = 32;
/// All bits of the lower half except those of the interest.
const OTHERS: u64 = (1 << VERSION) - 1 - (BYTE << INTEREST);
/// The other bits, and those of edge-triggered and one-shot interests.
const UNUSUAL: u64 = OTHERS | (Interest::EDGE.union(Interest::ONESHOT).bits() as u64) << INTEREST;
/// The bit of RDHUP in the recorded readiness, where a byte has room for it.
const RDHUP: u64 = 0x40;
const PENDING_BITS: u64 = 0x7f;
const _: () = assert!((Readiness::all().difference(Readiness::RDHUP).bits() as u64) < RDHUP);

impl State {
    pub(crate) fn new(interest: Interest) -> Self {
        Self(u64::from(interest.bits()) << INTEREST)
    }

    /// Returns `true` if an event can be delivered directly: the value is not special, there are no
    /// exclusions and no recorded readiness, and the interest is neither edge-triggered nor one-shot.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 & UNUSUAL == 0
    }

    /// Returns `true` if the interest is not one-shot, and there are no exclusions and no recorded readiness.
    #[inline]
    pub(crate) fn is_clear(self) -> bool {
        const ONESHOT: u64 = (Interest::ONESHOT.bits() as u64) << INTEREST;
        self.0 & (OTHERS & !SPECIAL | ONESHOT) == 0
    }

    #[inline]
    pub(crate) fn interest(self) -> Interest {
        Interest::from_bits_retain((self.0 >> INTEREST) as u8)
    }

    #[inline]
    pub(crate) fn set_interest(&mut self, interest: Interest) {
        self.0 = self.0 & !(BYTE << INTEREST) | u64::from(interest.bits()) << INTEREST;
    }

    #[inline]
    pub(crate) fn pending(self) -> Readiness {
        let bits = self.0 >> PENDING & PENDING_BITS;
        let mut readiness = Readiness::from_bits_retain((bits & !RDHUP) as u16);
        readiness.set(Readiness::RDHUP, bits & RDHUP != 0);
        readiness
    }

    #[inline]
    pub(crate) fn set_pending(&mut self, pending: Readiness) {
        let mut bits = u64::from((pending - Readiness::RDHUP).bits());
        if pending.contains(Readiness::RDHUP) {
            bits |= RDHUP;
        }
        self.0 = self.0 & !(PENDING_BITS << PENDING) | bits << PENDING;
    }

    /// Adds readiness, as far as the interest covers it.
    #[inline]
    pub(crate) fn add_pending(&mut self, readiness: Readiness) {
        self.set_pending(self.pending() | readiness & self.interest().mask());
    }

    #[inline]
    pub(crate) fn is_special(self) -> bool {
        self.0 & SPECIAL != 0
    }

    #[inline]
    pub(crate) fn set_special(&mut self, is_special: bool) {
        self.0 = self.0 & !SPECIAL | u64::from(is_special) << SPECIAL.trailing_zeros();
    }

    /// Returns the number of times that the value was replaced; wraps around.
    #[inline]
    pub(crate) fn version(self) -> u32 {
        (self.0 >> VERSION) as u32
    }

    pub(crate) fn count_replacement(&mut self) {
        self.0 = self.0.wrapping_add(1 << VERSION);
    }

    #[inline]
    pub(crate) fn exclusions(self) -> u16 {
        (self.0 & EXCLUSIONS) as u16
    }

    /// # Panics
    /// If there are 2^16 - 1 exclusions.
    pub(crate) fn exclude(&mut self) {
        let exclusions = self.exclusions().checked_add(1).expect("excluded too often");
        self.0 = self.0 & !EXCLUSIONS | u64::from(exclusions);
    }

    /// # Panics
    /// If there is no exclusion.
    pub(crate) fn readmit(&mut self) {
        let exclusions = self.exclusions().checked_sub(1);
        let exclusions = exclusions.expect("readmitted more often than excluded");
        self.0 = self.0 & !EXCLUSIONS | u64::from(exclusions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_word_do_not_touch_each_other() {
        for interest in [
            Interest::NONE,
            Interest::BOTH,
            Interest::PRIORITY,
            Interest::all(),
        ] {
            let mut state = State::new(interest);
            assert_eq!(state.is_plain(), !interest.reports_once());
            state.add_pending(Readiness::all());
            state.exclude();
            state.exclude();
            state.readmit();
            assert!(!state.is_plain());
            assert_eq!((state.interest(), state.exclusions()), (interest, 1));
            assert_eq!(state.pending(), interest.mask());
            state.set_interest(Interest::READ);
            state.set_pending(Readiness::empty());
            assert_eq!(
                (state.interest(), state.pending()),
                (Interest::READ, Readiness::empty())
            );
            assert!(!state.is_plain(), "it is excluded");
            state.readmit();
            assert!(state.is_plain());
            state.set_special(true);
            state.add_pending(Readiness::all());
            assert_eq!(
                (state.interest(), state.pending()),
                (Interest::READ, Interest::READ.mask())
            );
            state.set_pending(Readiness::empty());
            assert!(state.is_special() && state.is_clear() && !state.is_plain());
            assert_eq!((state.pending(), state.exclusions()), (Readiness::empty(), 0));
            state.set_special(false);
            assert!(state.is_plain() && !state.is_special());
        }
    }
}
