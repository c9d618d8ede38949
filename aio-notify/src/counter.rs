//! [`Counter`]: a figure that a loop counts and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number, or a time in nanoseconds, that one thread changes and any thread reads.
///
/// A change is a load and a store, so it costs no more than a change of a plain variable. If two threads
/// change the same counter at the same time, one of the changes may be lost. A counter orders nothing: a
/// thread that reads it need not see writes made before the change.
///
/// # Examples
/// ```
/// use aio_notify::Counter;
/// use std::time::Duration;
///
/// #[derive(Default)]
/// struct Figures {
///     requests: Counter,
///     busy: Counter,
/// }
///
/// let figures = Figures::default();
/// figures.requests.add(1);
/// figures.busy.add_time(Duration::from_micros(3));
/// std::thread::scope(|scope| {
///     scope.spawn(|| assert_eq!((figures.requests.get(), figures.busy.time()), (1, Duration::from_micros(3))));
/// });
/// ```
// Always the standard library's atomic: a model checker need not explore the orders of relaxed counts.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Makes a counter of zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `more`; the sum wraps around.
    #[inline(always)]
    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// Adds a time.
    #[inline]
    pub fn add_time(&self, more: Duration) {
        self.add(nanos(more));
    }

    /// Sets the value.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets the value to a time, at most 2^64 - 1 ns (584 years).
    #[inline]
    pub fn set_time(&self, time: Duration) {
        self.set(nanos(time));
    }

    /// Returns the value.
    #[inline(always)]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the value as a time.
    #[inline]
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.get())
    }
}

#[inline]
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_another_thread_reads_what_one_thread_counts_and_never_less_than_before() {
        let counter = Counter::new();
        std::thread::scope(|scope| {
            let counting = scope.spawn(|| (0..20_000).for_each(|_| counter.add(1)));
            let mut seen = 0;
            while !counting.is_finished() {
                let now = counter.get();
                assert!(seen <= now && now <= 20_000);
                seen = now;
            }
        });
        assert_eq!(counter.get(), 20_000);
    }

    #[test]
    fn m1_times_are_nanoseconds_and_one_that_is_too_long_is_the_longest() {
        let counter = Counter::default();
        counter.add_time(Duration::from_micros(3));
        counter.add_time(Duration::from_nanos(7));
        assert_eq!(
            (counter.get(), counter.time()),
            (3_007, Duration::from_nanos(3_007))
        );
        counter.set_time(Duration::MAX);
        assert_eq!(counter.time(), Duration::from_nanos(u64::MAX));
        counter.add(2);
        assert_eq!(counter.get(), 1);
    }
}
