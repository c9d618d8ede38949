//! The number of sources that are to be polled again, and a flag that shows whether there are any.

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

    /// One source was counted if it `was` due, and is to be if it `is`.
    #[inline]
    pub(crate) fn change(&mut self, was: bool, is: bool) {
        if was != is {
            self.count = if is { self.count + 1 } else { self.count - 1 };
            self.flag.set(self.count != 0);
        }
    }
}
