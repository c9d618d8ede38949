//! Counts the visited entries of a table, in tests only, so that tests assert costs without a clock.

/// Counts one visited entry.
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
