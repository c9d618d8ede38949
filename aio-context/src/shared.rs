//! [`Shared`]: polling parameters and figures, read and written by any thread.

use std::sync::PoisonError;
use std::time::Duration;

use aio_notify::Mailbox;
use aio_pollctl::{PollParams, WakeCost};

use crate::Gone;
use crate::metrics::Measured;
use crate::stats::{Counters, Stats, nanos};
use crate::sync::{AtomicU64, Mutex, Ordering, faulty};

/// What a context shares with other threads besides its mailbox.
pub(crate) struct Shared {
    params: Words,
    /// Held by a thread that sets `params`. The loop does not take it.
    setting: Mutex<()>,
    /// Raised after each change of `params`; the first are version 1.
    params_version: AtomicU64,
    /// Raised before the version if the policy is to start anew. Otherwise only the cost of a sleep has changed.
    resets: std::sync::atomic::AtomicU64,
    /// Batches of sleeps that were measured, and how far they differ, in percent.
    wake_measured: [std::sync::atomic::AtomicU64; 2],
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
            params: Words::new(params),
            setting: Mutex::new(()),
            params_version: AtomicU64::new(1),
            resets: std::sync::atomic::AtomicU64::new(1),
            wake_measured: Default::default(),
            has_panicked: std::sync::atomic::AtomicBool::new(false),
            stop: std::sync::atomic::AtomicBool::new(false),
            counters: Counters::default(),
            measured: Measured::default(),
        }
    }

    fn set_alone(&self) -> impl Drop + '_ {
        self.setting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the polling parameters. The caller interrupts the loop afterwards.
    pub(crate) fn set_params(&self, params: PollParams) {
        let version = &self.params_version;
        let _one_at_a_time = self.set_alone();
        self.resets.fetch_add(1, std::sync::atomic::Ordering::Release);
        faulty!(VersionBeforeParams, self.params.store(params); version.fetch_add(1, Ordering::Release));
    }

    /// Sets the cost of a sleep, if it was measured and not given. Returns whether it has changed. The loop adopts it in its next iteration.
    pub(crate) fn refine_wake(&self, cost: WakeCost) -> bool {
        let _one_at_a_time = self.set_alone();
        let params = self.params.load();
        if !params.wake_is_estimate || params.wake == cost {
            return false;
        }
        self.params.store(params.with_measured_wake(cost));
        self.params_version.fetch_add(1, Ordering::Release);
        true
    }

    /// Records how the cost of a sleep was measured.
    pub(crate) fn wake_was_measured(&self, batches: u64, spread_percent: u32) {
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        self.wake_measured[0].store(batches, relaxed);
        self.wake_measured[1].store(spread_percent.into(), relaxed);
    }

    /// The figures of the loop.
    pub(crate) fn stats<T, M: ?Sized>(&self, mailbox: &Mailbox<T, M>) -> Stats {
        let [batches, spread] = self
            .wake_measured
            .each_ref()
            .map(|word| word.load(std::sync::atomic::Ordering::Relaxed));
        Stats {
            wake_cost: self.params().wake_or_assumed(),
            wake_batches: batches,
            wake_spread_percent: spread as u32,
            ..self.counters.read(mailbox)
        }
    }

    /// How often the policy was to start anew.
    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(std::sync::atomic::Ordering::Acquire)
    }

    /// The version of the polling parameters.
    #[inline]
    pub(crate) fn params_version(&self) -> u64 {
        self.params_version.load(Ordering::Acquire)
    }

    /// The polling parameters, as new as their version or newer. While another thread stores new ones, some may be old and some new:
    /// it raises the version and interrupts the loop afterwards, so the loop reads again.
    pub(crate) fn params(&self) -> PollParams {
        self.params.load()
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

/// Polling parameters in words that are stored one by one, so that reading them takes no lock and setting them no allocation. A time is
/// stored in nanoseconds, up to 584 years.
struct Words([AtomicU64; 8]);

impl Words {
    fn new(params: PollParams) -> Self {
        Self(encode(params).map(AtomicU64::new))
    }

    fn store(&self, params: PollParams) {
        for (word, value) in self.0.iter().zip(encode(params)) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn load(&self) -> PollParams {
        decode(self.0.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }
}

fn encode(params: PollParams) -> [u64; 8] {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    [
        nanos(params.max),
        nanos(params.fixed),
        nanos(params.wake.latency),
        nanos(params.wake.cpu),
        nanos(params.wake.kick),
        pair(params.grow, params.shrink),
        pair(params.weight, params.cpu_price),
        pair(
            params.cpu_max,
            u32::from(params.wake_is_estimate) | u32::from(params.exclusive_core) << 1,
        ),
    ]
}

fn decode([max, fixed, latency, cpu, kick, growth, weights, limits]: [u64; 8]) -> PollParams {
    let (low, high) = (|pair: u64| pair as u32, |pair: u64| (pair >> 32) as u32);
    let mut params = PollParams::OFF;
    params.max = Duration::from_nanos(max);
    params.fixed = Duration::from_nanos(fixed);
    params.wake = WakeCost {
        latency: Duration::from_nanos(latency),
        cpu: Duration::from_nanos(cpu),
        kick: Duration::from_nanos(kick),
    };
    (params.grow, params.shrink) = (low(growth), high(growth));
    (params.weight, params.cpu_price) = (low(weights), high(weights));
    params.cpu_max = low(limits);
    params.wake_is_estimate = high(limits) & 1 != 0;
    params.exclusive_core = high(limits) & 2 != 0;
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a12_a_measured_cost_of_a_sleep_is_refined_and_a_given_one_is_kept() {
        let wake = |us| WakeCost::of_total(Duration::from_micros(us));
        let params = PollParams::up_to(Duration::from_micros(50)).with_measured_wake(wake(10));
        let shared = Shared::new(params);
        let resets = shared.resets();
        assert!(shared.refine_wake(wake(20)) && !shared.refine_wake(wake(20)));
        assert_eq!(shared.params(), params.with_measured_wake(wake(20)));
        assert_eq!((shared.params_version(), shared.resets()), (2, resets));
        shared.set_params(params.with_wake(wake(30)));
        assert_eq!((shared.params_version(), shared.resets()), (3, resets + 1));
        assert!(!shared.refine_wake(wake(20)));
        assert_eq!(shared.params().wake, wake(30));
    }

    #[test]
    fn a6_parameters_arrive_as_they_were_set() {
        let us = Duration::from_micros;
        let mut all = PollParams::up_to(us(1))
            .with_grow(2)
            .with_shrink(3)
            .with_weight(4);
        all = all.with_fixed(us(5)).with_cpu_price(6).with_cpu_max(7);
        all.wake = WakeCost {
            latency: us(8),
            cpu: us(9),
            kick: us(10),
        };
        let shared = Shared::new(all);
        assert_eq!((shared.params_version(), shared.params()), (1, all));
        for (is_estimate, is_exclusive) in [(true, false), (true, true), (false, true), (false, false)] {
            all.wake_is_estimate = is_estimate;
            all.exclusive_core = is_exclusive;
            shared.set_params(all);
            assert_eq!(shared.params(), all);
        }
        shared.set_params(PollParams::up_to(Duration::MAX));
        assert_eq!(shared.params(), PollParams::up_to(Duration::from_nanos(u64::MAX)));
        assert_eq!(shared.params_version(), 6);
    }
}
