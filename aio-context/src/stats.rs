//! [`Stats`]: what a loop has done, readable from any thread without stopping it. [`Shared`]: its figures and its polling parameters.
//!
//! Only the home thread writes figures, but for those of the cost of a sleep. Any thread sets parameters.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use aio_backend::Token;
use aio_notify::{HandlerCounters, LoopCounters, Mailbox, Published, WeakMap};
use aio_pollctl::{PollParams, PollSetting, WakeCost};

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

/// What a context shares with other threads besides its mailbox.
pub(crate) struct Shared {
    /// The polling parameters, as a [`PollSetting`].
    pub(crate) params: Published<{ PollSetting::WORDS }>,
    pub(crate) counters: LoopCounters,
    /// The measured handlers.
    pub(crate) measured: WeakMap<Token, HandlerCounters>,
}

impl Shared {
    pub(crate) fn new(params: PollParams) -> Self {
        Self {
            params: Published::new(PollSetting::new(params).to_words()),
            counters: LoopCounters::default(),
            measured: WeakMap::default(),
        }
    }

    /// Sets the polling parameters to what `change` makes of them, unless that is `None`. Returns whether it has. The loop adopts them in its next
    /// iteration.
    pub(crate) fn update(&self, change: impl FnOnce(PollSetting) -> Option<PollSetting>) -> bool {
        let change = |words| change(PollSetting::from_words(words)).map(PollSetting::to_words);
        self.params.update(change)
    }

    /// The polling parameters, as new as their version or newer; see [`Published`].
    pub(crate) fn setting(&self) -> PollSetting {
        PollSetting::from_words(self.params.load())
    }

    /// The figures of the loop, with the wake-ups of `mailbox`.
    pub(crate) fn stats<T, M: ?Sized>(&self, mailbox: &Mailbox<T, M>) -> Stats {
        let (wakeups_sent, wakeups_elided) = mailbox.wakeups();
        let params = self.setting().params;
        Stats {
            iterations: self.counters.iterations.get(),
            blocked: self.counters.blocked.get(),
            poll_hits: self.counters.poll_hits.get(),
            poll_misses: self.counters.poll_misses.get(),
            spun: self.counters.spun.time(),
            slept: self.counters.slept.time(),
            budget: self.counters.budget.time(),
            wakeups_sent,
            wakeups_elided,
            wakeups_accepted: mailbox.wakeups_accepted(),
            events: self.counters.events.get(),
            kicks: self.counters.kicks.get(),
            poll_suspensions: self.counters.poll_suspensions.get(),
            slow_callbacks: self.counters.slow_callbacks.get(),
            poll_cpu_max: params.cpu_max_or_default(),
            wake_cost: params.wake_or_assumed(),
            wake_batches: self.counters.wake_batches.get(),
            wake_spread_percent: self.counters.wake_spread_percent.get() as u32,
        }
    }
}

/// How the callbacks of one handler are timed.
pub(crate) struct Timing {
    pub(crate) counters: Arc<HandlerCounters>,
    /// The number of the limit that its slowness was reported for.
    pub(crate) reported_for: Cell<Option<u32>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_waits_are_told_apart() {
        let shared = Shared::new(PollParams::OFF.with_cpu_max(40));
        let counters = &shared.counters;
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
        counters.wake_batches.set(5);
        counters.wake_spread_percent.set(2);
        let stats = shared.stats(&mailbox);
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
                poll_cpu_max: 40,
                wake_cost: WakeCost::ASSUMED,
                wake_batches: 5,
                wake_spread_percent: 2,
                ..Stats::default()
            }
        );
        assert_eq!(counters.slept.time(), micros(50));
    }
}
