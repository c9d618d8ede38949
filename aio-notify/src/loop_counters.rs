//! [`LoopCounters`]: a loop's figures of its iterations, waits and searches. [`LoopStats`]: a copy of them, for other threads.

use std::time::Duration;

use crate::{Counter, Mailbox};

/// The figures of a loop since it was made. They are read one after the other, and the loop may run in between.
///
/// # Examples
/// ```
/// use aio_notify::{LoopCounters, Mailbox};
///
/// let (counters, mailbox) = (LoopCounters::default(), Mailbox::<()>::new()?);
/// counters.iteration();
/// mailbox.notify();
/// let stats = counters.stats(&mailbox);
/// assert_eq!((stats.iterations, stats.wakeups_elided), (1, 1));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopStats {
    /// Iterations, including nested ones; in a foreign loop, the number of times it was dispatched.
    pub iterations: u64,
    /// Waits in which the loop slept, or was about to, including nested ones and those with polling off. Waits
    /// of a foreign loop are not counted.
    pub blocked: u64,
    /// Searches in user space that found work.
    pub poll_hits: u64,
    /// Searches in user space that found no work in their time.
    pub poll_misses: u64,
    /// The time spent searching.
    pub spun: Duration,
    /// The time spent in the waits of [`blocked`](Self::blocked), including the time to wake up.
    pub slept: Duration,
    /// The time that the next wait may spend searching, from the last decision of the policy.
    pub budget: Duration,
    /// The number of times that polling was suspended for a while, because the thread did not run although it
    /// polled: it shares its core, or has used up its quota of CPU time.
    pub poll_suspensions: u64,
    /// Notifications that cost a system call, because the loop slept or was about to.
    pub wakeups_sent: u64,
    /// Notifications without a system call, because the loop was awake or a finished write was waking it already.
    pub wakeups_elided: u64,
    /// The number of [`wakeups_sent`](Self::wakeups_sent) that the loop has accepted. The others are in flight.
    pub wakeups_accepted: u64,
    /// Calls of handlers that have returned: for readiness of their descriptors, or for work that polling has
    /// found. Bottom halves, timers and woken sources are no events.
    pub events: u64,
    /// The number of [`events`](Self::events) that came through the descriptor of a polled handler. Its peer
    /// has kicked it, which polling would have avoided.
    pub kicks: u64,
    /// Callbacks that exceeded the limit of their time; zero without a limit.
    pub slow_callbacks: u64,
    /// Batches of sleeps whose cost was measured.
    pub wake_batches: u64,
    /// The spread of these batches, in percent of the cost: a few percent on a quiet machine.
    pub wake_spread_percent: u32,
}

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

    /// Returns the figures of the loop, with the wake-ups of its `mailbox`.
    #[must_use]
    pub fn stats<T, M: ?Sized>(&self, mailbox: &Mailbox<T, M>) -> LoopStats {
        let (wakeups_sent, wakeups_elided) = mailbox.wakeups();
        LoopStats {
            iterations: self.iterations.get(),
            blocked: self.blocked.get(),
            poll_hits: self.poll_hits.get(),
            poll_misses: self.poll_misses.get(),
            spun: self.spun.time(),
            slept: self.slept.time(),
            budget: self.budget.time(),
            poll_suspensions: self.poll_suspensions.get(),
            wakeups_sent,
            wakeups_elided,
            wakeups_accepted: mailbox.wakeups_accepted(),
            events: self.events.get(),
            kicks: self.kicks.get(),
            slow_callbacks: self.slow_callbacks.get(),
            wake_batches: self.wake_batches.get(),
            wake_spread_percent: self.wake_spread_percent.get() as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_waits_are_told_apart() {
        let (counters, micros) = (LoopCounters::default(), Duration::from_micros);
        counters.iteration();
        counters.searched(false, micros(3));
        counters.budget.set_time(micros(8));
        counters.sleep(micros(30));
        counters.searched(true, micros(10));
        counters.sleep(micros(20));
        counters.hit();
        counters.searched(false, micros(0));
        counters.budget.set_time(micros(4));
        counters.events.add(3);
        counters.kicks.add(1);
        counters.suspension();
        counters.slow_callbacks.add(1);
        let mailbox = Mailbox::<()>::new().expect("there is a descriptor left");
        mailbox.notify();
        counters.wake_batches.set(5);
        counters.wake_spread_percent.set(2);
        assert_eq!(
            counters.stats(&mailbox),
            LoopStats {
                iterations: 1,
                blocked: 2,
                poll_hits: 2,
                poll_misses: 1,
                spun: micros(13),
                slept: micros(50),
                budget: micros(4),
                wakeups_elided: 1,
                events: 3,
                kicks: 1,
                poll_suspensions: 1,
                slow_callbacks: 1,
                wake_batches: 5,
                wake_spread_percent: 2,
                ..LoopStats::default()
            }
        );
    }
}
