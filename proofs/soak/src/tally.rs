//! [`Tally`]: the work that helpers have done.

use std::sync::atomic::{AtomicU64, Ordering};

/// The work of the helpers, for comparison with the events that arrived.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) jobs_run: AtomicU64,
    pub(crate) orders_done: AtomicU64,
    pub(crate) work: AtomicU64,
    /// The number of last schedules by helpers, counted before each of them.
    last_schedules: AtomicU64,
    last_schedules_seen: AtomicU64,
}

impl Tally {
    /// Records that a helper is about to schedule for the last time.
    pub(crate) fn schedules_last(&self) {
        self.last_schedules.fetch_add(1, Ordering::Release);
    }

    /// Records a run. Called by the bottom halves and jobs of the helpers.
    pub(crate) fn saw_schedules(&self) {
        let seen = self.last_schedules.load(Ordering::Acquire);
        self.last_schedules_seen.store(seen, Ordering::Relaxed);
    }

    /// Returns `true` if a bottom half has run after each helper's last schedule.
    pub(crate) fn schedules_are_seen(&self) -> bool {
        self.last_schedules_seen.load(Ordering::Relaxed) == self.last_schedules.load(Ordering::Acquire)
    }
}
