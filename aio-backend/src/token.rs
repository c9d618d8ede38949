//! [`Token`]: identifies a registration, in 64 bits that a kernel can store.

use std::fmt;

/// Identifies one registration: the index of a slot and its generation, together 64 bits.
///
/// The kernel stores a token in place of a pointer. If an event arrives after its registration was removed and the slot was reused,
/// the generations differ, and the event is recognised as stale.
///
/// ```
/// use aio_backend::Token;
///
/// let token = Token::new(7, 1);
/// assert_eq!((token.index(), token.generation()), (7, 1));
/// assert_ne!(token, Token::new(7, 2)); // the slot is used again
/// assert_eq!(Token::from_bits(token.to_bits()), token);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

impl Token {
    /// Makes the token of slot `index` in its `generation`.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self(((generation as u64) << 32) | index as u64)
    }

    /// Returns the index of the slot. Indices are dense and can index an array.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// Returns the number of earlier uses of the slot.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the 64 bits, for places that hold a number, such as the user data of an event.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the token of which these are the [bits](Self::to_bits).
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
    fn r2_generations_distinguish_two_uses_of_a_slot() {
        assert_ne!(Token::new(7, 1), Token::new(7, 2));
    }
}
