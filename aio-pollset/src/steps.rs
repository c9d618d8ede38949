//! Counts, in tests only, the units of work that a set does: cost that can be asserted without a clock.

/// One entry, slot or queued item is touched.
#[inline(always)]
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
