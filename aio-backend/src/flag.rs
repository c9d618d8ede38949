//! [`Flag`]: a bit that shows a loop that one of its parts needs attention.

use std::cell::Cell;
use std::rc::Rc;

/// A bit of a word that the parts of a loop share. The part that owns the flag sets and clears it; by one
/// comparison the loop finds out whether any part needs attention.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use aio_backend::Flag;
///
/// let word = Rc::new(Cell::new(0));
/// let [first, second] = [0, 1].map(|position| Flag::new(&word, position));
/// first.set(true);
/// second.set(true);
/// first.set(false);
/// assert!(word.get() == 0b10 && second.is_set());
/// ```
#[derive(Clone, Debug)]
pub struct Flag {
    word: Rc<Cell<u32>>,
    bit: u32,
}

impl Flag {
    /// Makes a flag of the bit at `position` of `word`, which no other part uses.
    ///
    /// # Panics
    /// In debug builds, if `position` is 32 or more.
    #[must_use]
    pub fn new(word: &Rc<Cell<u32>>, position: u32) -> Self {
        Self {
            word: word.clone(),
            bit: 1 << position,
        }
    }

    /// Sets or clears the bit.
    #[inline]
    pub fn set(&self, is_on: bool) {
        let others = self.word.get() & !self.bit;
        self.word.set(others | if is_on { self.bit } else { 0 });
    }

    /// Returns whether the bit is set.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.word.get() & self.bit != 0
    }
}

/// Makes a flag for a part that is used alone.
impl Default for Flag {
    fn default() -> Self {
        Self::new(&Rc::default(), 0)
    }
}
