//! [`Token`]: the name of a registration, safe to hand to a kernel.

use std::fmt;

/// Names one registration: a slot index and the slot's generation, together 64 bits.
///
/// A token goes to the kernel instead of a pointer. When an event comes late, after its registration was removed
/// and the slot was used again, the generations differ and the event is recognised as stale.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

impl Token {
    /// The token of slot `index` in its `generation`.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self(((generation as u64) << 32) | index as u64)
    }

    /// The slot's index: dense, so that it can index an array.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// How often the slot had been given out before.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The 64 bits, to store where only a number fits, such as an event's user data.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The token that [`to_bits`](Self::to_bits) was called on.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.{})", self.index(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_survive_the_way_through_the_kernel() {
        for (index, generation) in [(0, 0), (1, 2), (u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
            let token = Token::from_bits(Token::new(index, generation).to_bits());
            assert_eq!((token.index(), token.generation()), (index, generation));
        }
    }

    #[test]
    fn r2_generations_tell_two_uses_of_a_slot_apart() {
        assert_ne!(Token::new(7, 1), Token::new(7, 2));
    }
}
