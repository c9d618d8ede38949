//! [`Shared`]: polling parameters and figures, read and written by any thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aio_notify::{Mailbox, Published};
use aio_pollctl::{PollParams, WakeCost};

use crate::Gone;
use crate::metrics::Measured;
use crate::stats::{Counters, Stats};

/// What a context shares with other threads besides its mailbox.
pub(crate) struct Shared {
    /// The polling parameters, and how often they were set. Otherwise only the cost of a sleep has changed.
    params: Published<WORDS>,
    /// Batches of sleeps that were measured, and how far they differ, in percent.
    wake_measured: [AtomicU64; 2],
    /// The context was dropped while its home thread panicked.
    has_panicked: AtomicBool,
    pub(crate) counters: Counters,
    pub(crate) measured: Measured,
}

impl Shared {
    pub(crate) fn new(params: PollParams) -> Self {
        Self {
            params: Published::new(words(params, 1)),
            wake_measured: Default::default(),
            has_panicked: AtomicBool::new(false),
            counters: Counters::default(),
            measured: Measured::default(),
        }
    }

    /// Sets the polling parameters. The caller interrupts the loop afterwards.
    pub(crate) fn set_params(&self, params: PollParams) {
        self.params
            .update(|[.., sets]| Some(words(params, sets.wrapping_add(1))));
    }

    /// Sets the cost of a sleep, if it was measured and not given. Returns whether it has changed. The loop adopts it in its next iteration.
    pub(crate) fn refine_wake(&self, cost: WakeCost) -> bool {
        self.params.update(|all| {
            let (params, sets) = params_of(all);
            let is_news = params.wake_is_estimate && params.wake != cost;
            is_news.then(|| words(params.with_measured_wake(cost), sets))
        })
    }

    /// Records how the cost of a sleep was measured.
    pub(crate) fn wake_was_measured(&self, batches: u64, spread_percent: u32) {
        let relaxed = Ordering::Relaxed;
        self.wake_measured[0].store(batches, relaxed);
        self.wake_measured[1].store(spread_percent.into(), relaxed);
    }

    /// The figures of the loop.
    pub(crate) fn stats<T, M: ?Sized>(&self, mailbox: &Mailbox<T, M>) -> Stats {
        let [batches, spread] = self
            .wake_measured
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        let params = self.params().0;
        Stats {
            poll_cpu_max: params.cpu_max_or_default(),
            wake_cost: params.wake_or_assumed(),
            wake_batches: batches,
            wake_spread_percent: spread as u32,
            ..self.counters.read(mailbox)
        }
    }

    /// The version of the polling parameters.
    #[inline]
    pub(crate) fn params_version(&self) -> u64 {
        self.params.version()
    }

    /// The polling parameters, as new as their version or newer, and how often they were set; see [`Published`].
    pub(crate) fn params(&self) -> (PollParams, u64) {
        params_of(self.params.load())
    }

    /// Records that the home thread drops the context while it panics.
    pub(crate) fn panicked(&self) {
        self.has_panicked.store(true, Ordering::Release);
    }

    /// Why the context is gone.
    pub(crate) fn gone(&self) -> Gone {
        if self.has_panicked.load(Ordering::Acquire) {
            Gone::Panicked
        } else {
            Gone::Dropped
        }
    }
}

/// The words of the polling parameters, and behind them how often these were set: a loop that sees the last word sees the others.
const WORDS: usize = PollParams::WORDS + 1;

fn words(params: PollParams, sets: u64) -> [u64; WORDS] {
    let mut all = [sets; WORDS];
    all[..PollParams::WORDS].copy_from_slice(&params.to_words());
    all
}

fn params_of(all: [u64; WORDS]) -> (PollParams, u64) {
    let mut params = [0; PollParams::WORDS];
    params.copy_from_slice(&all[..PollParams::WORDS]);
    (PollParams::from_words(params), all[PollParams::WORDS])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a12_a_measured_cost_of_a_sleep_is_refined_and_a_given_one_is_kept() {
        let wake = |us| WakeCost::of_total(Duration::from_micros(us));
        let params = PollParams::up_to(Duration::from_micros(50)).with_measured_wake(wake(10));
        let shared = Shared::new(params);
        let sets = shared.params().1;
        assert!(shared.refine_wake(wake(20)) && !shared.refine_wake(wake(20)));
        assert_eq!(shared.params(), (params.with_measured_wake(wake(20)), sets));
        assert_eq!(shared.params_version(), 2);
        shared.set_params(params.with_wake(wake(30)));
        assert_eq!((shared.params_version(), shared.params().1), (3, sets + 1));
        assert!(!shared.refine_wake(wake(20)));
        assert_eq!(shared.params().0.wake, wake(30));
    }
}
