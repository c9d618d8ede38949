//! [`Due`]: the number of sources with a due recheck, and a flag that is set while there are any.

use aio_backend::Flag;

#[derive(Debug, Default)]
pub(crate) struct Due {
    count: usize,
    flag: Flag,
}

impl Due {
    pub(crate) fn flagged(flag: Flag) -> Self {
        Self { count: 0, flag }
    }

    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Updates the count for a source whose recheck `was` due before, and `is` due now.
    #[inline]
    pub(crate) fn change(&mut self, was: bool, is: bool) {
        if was != is {
            self.count = if is { self.count + 1 } else { self.count - 1 };
            self.flag.set(self.count != 0);
        }
    }
}
