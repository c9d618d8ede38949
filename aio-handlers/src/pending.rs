//! [`Pending`]: recorded readiness in one byte of a slot.

use aio_backend::Readiness;

/// The bit of RDHUP, which is outside a byte in [`Readiness`].
const RDHUP: u8 = 0x40;

/// Readiness that was recorded and not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending(u8);

impl Pending {
    pub(crate) const NONE: Self = Self(0);

    #[inline]
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn get(self) -> Readiness {
        let mut readiness = Readiness::from_bits_truncate((self.0 & !RDHUP).into());
        readiness.set(Readiness::RDHUP, self.0 & RDHUP != 0);
        readiness
    }

    #[inline]
    pub(crate) fn add(&mut self, readiness: Readiness) {
        self.0 |= Self::from(readiness).0;
    }

    #[inline]
    pub(crate) fn keep(&mut self, mask: Readiness) {
        self.0 &= Self::from(mask).0;
    }
}

impl From<Readiness> for Pending {
    #[inline]
    fn from(readiness: Readiness) -> Self {
        let half_close = if readiness.contains(Readiness::RDHUP) {
            RDHUP
        } else {
            0
        };
        Self((readiness - Readiness::RDHUP).bits() as u8 | half_close)
    }
}

const _: () = assert!(Readiness::all().difference(Readiness::RDHUP).bits() < RDHUP as u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_readiness_fits_into_a_byte() {
        for bits in 0..=Readiness::all().bits() {
            let readiness = Readiness::from_bits_truncate(bits);
            let mut pending = Pending::from(readiness);
            assert_eq!(pending.get(), readiness);
            assert_eq!(pending.is_empty(), readiness.is_empty());
            pending.add(Readiness::HUP);
            pending.keep(Readiness::HUP);
            assert_eq!(pending, Readiness::HUP.into());
        }
    }
}
