//! [`LoopCounters`]: what a loop counts of its iterations, waits and searches, for other threads to read.

use std::time::Duration;

use crate::Counter;

/// The figures of a loop. Only its home thread writes, but for the last two. They are written in every iteration, so they have their own pair of
/// cache lines.
///
/// # Examples
/// ```
/// use aio_notify::LoopCounters;
/// use std::time::Duration;
///
/// let counters = LoopCounters::default();
/// counters.iteration();
/// counters.searched(false, Duration::from_micros(8)); // in vain
/// counters.sleep(Duration::from_micros(50));
/// counters.events.add(1);
/// std::thread::scope(|scope| {
///     scope.spawn(|| assert_eq!((counters.blocked.get(), counters.spun.time()), (1, Duration::from_micros(8))));
/// });
/// ```
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LoopCounters {
    /// Iterations.
    pub iterations: Counter,
    /// Calls of handlers that have returned.
    pub events: Counter,
    /// Waits in which the loop slept, or was about to.
    pub blocked: Counter,
    /// Searches in user space that found something.
    pub poll_hits: Counter,
    /// Searches in user space that found nothing in their time.
    pub poll_misses: Counter,
    /// The time spent searching.
    pub spun: Counter,
    /// The time spent in waits.
    pub slept: Counter,
    /// How long the next wait may be spent searching: a time.
    pub budget: Counter,
    /// Those of `events` that came through the descriptor of a polled handler.
    pub kicks: Counter,
    /// How often polling was suspended for a while.
    pub poll_suspensions: Counter,
    /// Callbacks that took longer than they may.
    pub slow_callbacks: Counter,
    /// Batches of sleeps whose cost was measured. Set by the thread that measures.
    pub wake_batches: Counter,
    /// How far these batches differ, in percent. Set by the thread that measures.
    pub wake_spread_percent: Counter,
}

impl LoopCounters {
    /// Counts an iteration.
    #[inline]
    pub fn iteration(&self) {
        self.iterations.add(1);
    }

    /// Counts a wait that took so long.
    pub fn sleep(&self, took: Duration) {
        self.blocked.add(1);
        self.slept.add_time(took);
    }

    /// Counts a search that has found something at once.
    #[inline]
    pub fn hit(&self) {
        self.poll_hits.add(1);
    }

    /// Counts a search that took so long. One without a hit that took no time is none.
    pub fn searched(&self, hit: bool, spun: Duration) {
        self.poll_hits.add(hit.into());
        self.poll_misses.add((!hit && !spun.is_zero()).into());
        self.spun.add_time(spun);
    }

    /// Counts that polling was suspended.
    #[cold]
    pub fn suspension(&self) {
        self.poll_suspensions.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_waits_and_searches_are_told_apart() {
        let (counters, micros) = (LoopCounters::default(), Duration::from_micros);
        counters.searched(false, micros(3));
        counters.sleep(micros(30));
        counters.searched(true, micros(10));
        counters.sleep(micros(20));
        counters.hit();
        counters.searched(false, micros(0));
        let searches = (counters.poll_hits.get(), counters.poll_misses.get());
        assert_eq!((searches, counters.spun.time()), ((2, 1), micros(13)));
        assert_eq!((counters.blocked.get(), counters.slept.time()), (2, micros(50)));
    }
}
