//! Counts units of work, in tests only, so that tests can assert costs without a clock.

/// Counts one visit of an entry, a slot or a queued item.
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
