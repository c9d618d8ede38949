//! [`Stats`]: what a loop has done, readable from any thread without stopping it.
//!
//! Only the home thread writes.

use std::time::Duration;

use aio_notify::{Counter, Mailbox};
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
    /// The largest share of time for polling in force, in percent: 100, or what the [parameters](crate::PollParams::cpu_max) limit it to, for a
    /// quota of the control group (`aio_sources::CpuQuota`) as well.
    pub poll_cpu_max: u32,
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
    pub(crate) iterations: Counter,
    pub(crate) events: Counter,
    blocked: Counter,
    poll_hits: Counter,
    poll_misses: Counter,
    spun: Counter,
    pub(crate) slept: Counter,
    pub(crate) budget: Counter,
    pub(crate) kicks: Counter,
    poll_suspensions: Counter,
    pub(crate) slow_callbacks: Counter,
}

impl Counters {
    #[inline]
    pub(crate) fn iteration(&self) {
        self.iterations.add(1);
    }

    /// Notes a wait that took so long.
    pub(crate) fn sleep(&self, took: Duration) {
        self.blocked.add(1);
        self.slept.add_time(took);
    }

    /// Records a search that has found something at once.
    #[inline]
    pub(crate) fn hit(&self) {
        self.poll_hits.add(1);
    }

    /// Records a search that took so long.
    pub(crate) fn searched(&self, hit: bool, spun: Duration) {
        if hit {
            self.poll_hits.add(1);
        } else {
            self.poll_misses.add((!spun.is_zero()).into());
        }
        self.spun.add_time(spun);
    }

    /// How many kicks there were.
    pub(crate) fn kicks(&self) -> u64 {
        self.kicks.get()
    }

    /// Records that polling was suspended.
    #[cold]
    pub(crate) fn suspension(&self) {
        self.poll_suspensions.add(1);
    }

    /// Reads all counters, and the wake-ups of `mailbox`.
    pub(crate) fn read<T, M: ?Sized>(&self, mailbox: &Mailbox<T, M>) -> Stats {
        let (wakeups_sent, wakeups_elided) = mailbox.wakeups();
        Stats {
            iterations: self.iterations.get(),
            blocked: self.blocked.get(),
            poll_hits: self.poll_hits.get(),
            poll_misses: self.poll_misses.get(),
            spun: self.spun.time(),
            slept: self.slept.time(),
            budget: self.budget.time(),
            wakeups_sent,
            wakeups_elided,
            wakeups_accepted: mailbox.wakeups_accepted(),
            events: self.events.get(),
            kicks: self.kicks.get(),
            poll_suspensions: self.poll_suspensions.get(),
            slow_callbacks: self.slow_callbacks.get(),
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
        assert_eq!(counters.slept.time(), micros(50));
    }
}
