//! [`Stats`]: what a loop has done, readable from any thread without stopping it.
//!
//! Only the home thread writes; each counter by a load and a store, which costs no more than a counter of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_pollctl::Iteration;

/// What a loop has done since it was made. The figures are read one by one: between two of them the loop may go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Iterations, nested ones included.
    pub iterations: u64,
    /// Waits in which the loop slept, or was about to.
    pub blocked: u64,
    /// Searches in user space that found something.
    pub poll_hits: u64,
    /// Searches in user space that found nothing in their time.
    pub poll_misses: u64,
    /// The time spent searching.
    pub spun: Duration,
    /// The time spent in waits that slept, with what waking up took.
    pub slept: Duration,
    /// How long the next wait may be spent searching, as it was last decided.
    pub budget: Duration,
    /// Notifications that cost a system call, because the loop slept or was about to.
    pub wakeups_sent: u64,
    /// Notifications that cost none, because the loop was awake or a finished write was waking it already.
    pub wakeups_elided: u64,
}

/// The counters behind [`Stats`]. Written in every iteration, so they have their own pair of cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    iterations: AtomicU64,
    blocked: AtomicU64,
    poll_hits: AtomicU64,
    poll_misses: AtomicU64,
    spun_ns: AtomicU64,
    slept_ns: AtomicU64,
    budget_ns: AtomicU64,
}

/// One writer: no read-modify-write is needed.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Counters {
    #[inline]
    pub(crate) fn iteration(&self) {
        add(&self.iterations, 1);
    }

    /// Notes a wait, as the policy was shown it, and what the policy decided for the next one.
    pub(crate) fn wait(&self, seen: &Iteration, budget: Duration) {
        let slept = if seen.blocked {
            seen.elapsed.saturating_sub(seen.spun)
        } else {
            Duration::ZERO
        };
        add(&self.blocked, u64::from(seen.blocked));
        add(&self.poll_hits, u64::from(seen.hit));
        add(&self.poll_misses, u64::from(!seen.hit && !seen.spun.is_zero()));
        add(&self.spun_ns, nanos(seen.spun));
        add(&self.slept_ns, nanos(slept));
        self.budget_ns.store(nanos(budget), Ordering::Relaxed);
    }

    pub(crate) fn read(&self, (wakeups_sent, wakeups_elided): (u64, u64)) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |counter: &AtomicU64| Duration::from_nanos(count(counter));
        Stats {
            iterations: count(&self.iterations),
            blocked: count(&self.blocked),
            poll_hits: count(&self.poll_hits),
            poll_misses: count(&self.poll_misses),
            spun: time(&self.spun_ns),
            slept: time(&self.slept_ns),
            budget: time(&self.budget_ns),
            wakeups_sent,
            wakeups_elided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_apart() {
        let counters = Counters::default();
        let micros = Duration::from_micros;
        counters.iteration();
        counters.wait(&Iteration::new(micros(3), micros(3), false, true), micros(8));
        counters.wait(&Iteration::new(micros(40), micros(10), true, false), micros(4));
        counters.wait(&Iteration::new(micros(20), micros(0), true, false), micros(0));
        let stats = counters.read((5, 6));
        assert_eq!(
            (
                stats.iterations,
                stats.blocked,
                stats.poll_hits,
                stats.poll_misses
            ),
            (1, 2, 1, 1)
        );
        assert_eq!(
            (stats.spun, stats.slept, stats.budget),
            (micros(13), micros(50), micros(0))
        );
        assert_eq!((stats.wakeups_sent, stats.wakeups_elided), (5, 6));
    }
}
