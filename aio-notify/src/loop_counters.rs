//! [`LoopCounters`]: a loop's figures of its iterations, waits and searches, for other threads to read.

use std::time::Duration;

use crate::Counter;

/// The figures of a loop. Only its home thread writes them, except for the last two. They are written in
/// every iteration, so they have their own pair of cache lines.
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
    /// Searches in user space that found work.
    pub poll_hits: Counter,
    /// Searches in user space that found no work in their time.
    pub poll_misses: Counter,
    /// The time spent searching.
    pub spun: Counter,
    /// The time spent in waits.
    pub slept: Counter,
    /// The time that the next wait may spend searching.
    pub budget: Counter,
    /// The number of `events` that came through the descriptor of a polled handler.
    pub kicks: Counter,
    /// The number of times that polling was suspended for a while.
    pub poll_suspensions: Counter,
    /// Callbacks that exceeded the limit of their time.
    pub slow_callbacks: Counter,
    /// Batches of sleeps whose cost was measured. Set by the thread that measures.
    pub wake_batches: Counter,
    /// The spread of these batches, in percent. Set by the thread that measures.
    pub wake_spread_percent: Counter,
}

impl LoopCounters {
    /// Counts an iteration.
    #[inline]
    pub fn iteration(&self) {
        self.iterations.add(1);
    }

    /// Counts a wait that took this long.
    pub fn sleep(&self, took: Duration) {
        self.blocked.add(1);
        self.slept.add_time(took);
    }

    /// Counts a search that found work at once.
    #[inline]
    pub fn hit(&self) {
        self.poll_hits.add(1);
    }

    /// Counts a search that took this long. One without a hit that took no time is not counted.
    pub fn searched(&self, hit: bool, spun: Duration) {
        if hit {
            self.poll_hits.add(1);
        } else {
            self.poll_misses.add((!spun.is_zero()).into());
        }
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
