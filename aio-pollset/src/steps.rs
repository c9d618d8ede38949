//! A counter of units of work, for tests only: they can assert costs without a clock.

/// Counts the visit of one entry, slot or queued item.
#[inline(always)]
pub(crate) fn step() {
    #[cfg(test)]
    COUNT.set(COUNT.get() + 1);
}

#[cfg(test)]
std::thread_local! {
    static COUNT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Returns the number of steps that `run` takes on this thread.
#[cfg(test)]
pub(crate) fn count<R>(run: impl FnOnce() -> R) -> u64 {
    let before = COUNT.get();
    run();
    COUNT.get() - before
}
