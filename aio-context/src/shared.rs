//! [`Shared`]: polling parameters and figures, read and written by any thread.

use std::sync::{PoisonError, TryLockError};

use aio_pollctl::PollParams;

use crate::Gone;
use crate::metrics::Measured;
use crate::stats::Counters;
use crate::sync::{AtomicU64, Mutex, Ordering, faulty};

/// What a context shares with other threads besides its mailbox.
pub(crate) struct Shared {
    /// Locked for a copy only. The loop tries the lock and never waits for it.
    params: Mutex<PollParams>,
    /// Raised after each change of `params`; the first are version 1.
    params_version: AtomicU64,
    /// The context was dropped while its home thread panicked.
    has_panicked: std::sync::atomic::AtomicBool,
    /// A thread has asked `run` to stop, and no `run` has yet.
    stop: std::sync::atomic::AtomicBool,
    pub(crate) counters: Counters,
    pub(crate) measured: Measured,
}

impl Shared {
    pub(crate) fn new(params: PollParams) -> Self {
        Self {
            params: Mutex::new(params),
            params_version: AtomicU64::new(1),
            has_panicked: std::sync::atomic::AtomicBool::new(false),
            stop: std::sync::atomic::AtomicBool::new(false),
            counters: Counters::default(),
            measured: Measured::default(),
        }
    }

    /// Sets the polling parameters. The caller interrupts the loop afterwards.
    pub(crate) fn set_params(&self, params: PollParams) {
        let version = &self.params_version;
        faulty!(VersionBeforeParams, self.store(params); version.fetch_add(1, Ordering::Release));
    }

    fn store(&self, params: PollParams) {
        *self.params.lock().unwrap_or_else(PoisonError::into_inner) = params;
    }

    /// The version of the polling parameters.
    #[inline]
    pub(crate) fn params_version(&self) -> u64 {
        self.params_version.load(Ordering::Acquire)
    }

    /// The polling parameters, as new as their version or newer. `None` while another thread stores new ones: it raises the version
    /// and interrupts the loop afterwards, so the loop tries again.
    pub(crate) fn params(&self) -> Option<PollParams> {
        match self.params.try_lock() {
            Ok(params) => Some(*params),
            Err(TryLockError::Poisoned(params)) => Some(*params.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Asks `run` to stop. The caller interrupts the loop afterwards.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Whether `run` was asked to stop since the last call.
    pub(crate) fn take_stop(&self) -> bool {
        // A plain load first: it is false all the time but once.
        self.stop.load(std::sync::atomic::Ordering::Relaxed)
            && self.stop.swap(false, std::sync::atomic::Ordering::Acquire)
    }

    /// Records that the home thread drops the context while it panics.
    pub(crate) fn panicked(&self) {
        self.has_panicked
            .store(true, std::sync::atomic::Ordering::Release);
    }

    /// Why the context is gone.
    pub(crate) fn gone(&self) -> Gone {
        if self.has_panicked.load(std::sync::atomic::Ordering::Acquire) {
            Gone::Panicked
        } else {
            Gone::Dropped
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a6_the_loop_does_not_wait_for_a_thread_that_sets_parameters() {
        let shared = Shared::new(PollParams::default());
        let setting = shared.params.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(shared.params(), None);
        drop(setting);
        let params = PollParams::up_to(Duration::from_micros(32));
        shared.set_params(params);
        assert_eq!((shared.params_version(), shared.params()), (2, Some(params)));
    }
}
