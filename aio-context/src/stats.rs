//! [`Stats`]: what a loop has done, readable from any thread without stopping it.
//!
//! Only the home thread writes; each counter by a load and a store, which costs no more than a counter of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aio_notify::Mailbox;
use aio_pollctl::WakeCost;

/// What a loop has done since it was made. The figures are read one by one: between two of them the loop may go on.
///
/// # Examples
/// ```
/// use aio_context::{Context, Wait};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, (reader, writer)) = (Context::new()?, std::io::pipe()?);
/// let _registration = cx.on(reader).readable(|_, _| ()).watch()?;
/// drop(writer);
/// cx.poll(Wait::Block)?;
/// let remote = cx.remote();
/// let stats = std::thread::spawn(move || remote.stats()).join().unwrap();
/// assert_eq!((stats.iterations, stats.events, stats.kicks), (1, 1, 0));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Iterations, nested ones included; in a foreign loop, the times it was [dispatched](crate::Embedded::dispatch).
    pub iterations: u64,
    /// Waits in which the loop slept, or was about to, also nested ones and with polling off. A foreign loop waits by itself.
    pub blocked: u64,
    /// Searches in user space that found something.
    pub poll_hits: u64,
    /// Searches in user space that found nothing in their time.
    pub poll_misses: u64,
    /// The time spent searching.
    pub spun: Duration,
    /// The time spent in these waits, with what waking up took.
    pub slept: Duration,
    /// How long the next wait may be spent searching, as it was last decided.
    pub budget: Duration,
    /// How often polling was suspended for a while, because the thread did not run although it polled: it shares its core, or has used
    /// up its quota of processor time.
    pub poll_suspensions: u64,
    /// Notifications that cost a system call, because the loop slept or was about to.
    pub wakeups_sent: u64,
    /// Notifications that cost none, because the loop was awake or a finished write was waking it already.
    pub wakeups_elided: u64,
    /// Those of [`wakeups_sent`](Self::wakeups_sent) that the loop has accepted. The others are on their way.
    pub wakeups_accepted: u64,
    /// Calls of handlers that have returned: for readiness of their descriptors, or for work that [`poll`](crate::Pollable::poll) has
    /// found. Bottom halves, timers and [woken](crate::SourceWaker::wake) sources are no events.
    pub events: u64,
    /// Those of [`events`](Self::events) that came through the descriptor of a polled handler: its peer has kicked it, which polling
    /// would have spared the peer.
    pub kicks: u64,
    /// Callbacks that took longer than the [limit](crate::Builder::slow_callback_limit); zero without one.
    pub slow_callbacks: u64,
    /// What a sleep costs, as the policy takes it: measured, given, or assumed.
    pub wake_cost: WakeCost,
    /// The batches of sleeps that were [measured](crate::Remote::wake_cost_measured) for that.
    pub wake_batches: u64,
    /// How far these batches differ, in percent of the cost: a few percent on a quiet machine.
    pub wake_spread_percent: u32,
}

/// The counters behind [`Stats`]. Written in every iteration, so they have their own pair of cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    iterations: AtomicU64,
    events: AtomicU64,
    blocked: AtomicU64,
    poll_hits: AtomicU64,
    poll_misses: AtomicU64,
    spun_ns: AtomicU64,
    slept_ns: AtomicU64,
    budget_ns: AtomicU64,
    kicks: AtomicU64,
    poll_suspensions: AtomicU64,
    slow_callbacks: AtomicU64,
}

/// One writer: no read-modify-write is needed.
#[inline]
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

pub(crate) fn time(counter: &AtomicU64) -> Duration {
    Duration::from_nanos(count(counter))
}

impl Counters {
    #[inline]
    pub(crate) fn iteration(&self) {
        add(&self.iterations, 1);
    }

    /// How many iterations there were.
    #[inline]
    pub(crate) fn iterations(&self) -> u64 {
        self.iterations.load(Ordering::Relaxed)
    }

    /// Notes a wait that took so long.
    pub(crate) fn sleep(&self, took: Duration) {
        add(&self.blocked, 1);
        add(&self.slept_ns, nanos(took));
    }

    /// How long the loop has slept.
    pub(crate) fn slept(&self) -> Duration {
        time(&self.slept_ns)
    }

    /// Records a search that has found something at once.
    #[inline]
    pub(crate) fn hit(&self) {
        add(&self.poll_hits, 1);
    }

    /// Records a search that took so long.
    pub(crate) fn searched(&self, hit: bool, spun: Duration) {
        add(&self.poll_hits, u64::from(hit));
        add(&self.poll_misses, u64::from(!hit && !spun.is_zero()));
        add(&self.spun_ns, nanos(spun));
    }

    /// Records how long the next search may take.
    #[inline]
    pub(crate) fn budget(&self, budget: Duration) {
        self.budget_ns.store(nanos(budget), Ordering::Relaxed);
    }

    /// Records how many handlers were called.
    #[inline(always)]
    pub(crate) fn events(&self, delivered: u64) {
        add(&self.events, delivered);
    }

    /// Records an event of a polled handler's descriptor.
    #[inline(always)]
    pub(crate) fn kick(&self) {
        add(&self.kicks, 1);
    }

    /// How many kicks there were.
    pub(crate) fn kicks(&self) -> u64 {
        count(&self.kicks)
    }

    /// Records that polling was suspended.
    #[cold]
    pub(crate) fn suspension(&self) {
        add(&self.poll_suspensions, 1);
    }

    pub(crate) fn slow_callback(&self) {
        add(&self.slow_callbacks, 1);
    }

    /// Reads all counters, and the wake-ups of `mailbox`.
    pub(crate) fn read<T, M: ?Sized>(&self, mailbox: &Mailbox<T, M>) -> Stats {
        let (wakeups_sent, wakeups_elided) = mailbox.wakeups();
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
            wakeups_accepted: mailbox.wakeups_accepted(),
            events: count(&self.events),
            kicks: count(&self.kicks),
            poll_suspensions: count(&self.poll_suspensions),
            slow_callbacks: count(&self.slow_callbacks),
            ..Stats::default()
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
        counters.searched(false, micros(3));
        counters.budget(micros(8));
        counters.sleep(micros(30));
        counters.searched(true, micros(10));
        counters.sleep(micros(20));
        counters.hit();
        counters.searched(false, micros(0));
        counters.budget(micros(4));
        counters.events(3);
        counters.kick();
        counters.suspension();
        counters.slow_callback();
        let mailbox = Mailbox::<()>::new().expect("there is a descriptor left");
        mailbox.notify();
        let stats = counters.read(&mailbox);
        assert_eq!(
            stats,
            Stats {
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
                ..Stats::default()
            }
        );
        assert_eq!(counters.slept(), micros(50));
    }
}
