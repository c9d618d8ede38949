//! Counts, in tests only, how many entries of a table are looked at: cost that can be asserted without a clock.

/// One entry of a table is looked at.
#[inline]
pub(crate) fn step() {
    #[cfg(test)]
    tests::COUNT.with(|count| count.set(count.get() + 1));
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        pub(super) static COUNT: Cell<u64> = const { Cell::new(0) };
    }

    /// How many steps `run` takes.
    pub(crate) fn count<R>(run: impl FnOnce() -> R) -> u64 {
        let before = COUNT.get();
        run();
        COUNT.get() - before
    }
}
