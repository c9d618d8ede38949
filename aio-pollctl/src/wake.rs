//! [`WakeCost`]: what a sleep costs, and so how long polling may take to be cheaper.

use core::time::Duration;

use crate::params::saturating_ns;

/// What it costs to sleep and to be woken.
///
/// Measure it with *short* sleeps: after a long one the processor is slower to come back, but then the polling time did not
/// matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeCost {
    latency_ns: u64,
    cpu_ns: u64,
    /// What a nanosecond of CPU time is worth, in percent of a nanosecond of latency.
    cpu_price: u32,
    measured: bool,
}

impl WakeCost {
    /// A guess for a machine that was not measured: 20 us of latency, 5 us of CPU time.
    pub const TYPICAL: Self = Self {
        latency_ns: 20_000,
        cpu_ns: 5_000,
        cpu_price: 100,
        measured: true,
    };

    /// As measured: the time from the wake-up to running, and the CPU time of sleeping and waking. A policy may refine it.
    #[must_use]
    pub const fn measured(latency: Duration, cpu: Duration) -> Self {
        Self {
            latency_ns: saturating_ns(latency),
            cpu_ns: saturating_ns(cpu),
            cpu_price: 100,
            measured: true,
        }
    }

    /// As a person says; no policy refines it.
    #[must_use]
    pub const fn told(latency: Duration) -> Self {
        Self {
            latency_ns: saturating_ns(latency),
            cpu_ns: 0,
            cpu_price: 100,
            measured: false,
        }
    }

    /// With another price of CPU time: 100 percent means that a nanosecond of CPU is worth a nanosecond of latency, 25 that
    /// it is worth a quarter of that, so that polling pays four times as long. Zero is taken for one.
    #[must_use]
    pub const fn priced(self, percent: u32) -> Self {
        let cpu_price = if percent == 0 { 1 } else { percent };
        Self { cpu_price, ..self }
    }

    /// How long polling may take to be no dearer than a sleep, in nanoseconds: latency over price, plus the sleep's own CPU
    /// time.
    #[must_use]
    pub const fn break_even_ns(&self) -> u64 {
        (self.latency_ns.saturating_mul(100) / self.cpu_price as u64).saturating_add(self.cpu_ns)
    }

    /// The latency in nanoseconds.
    #[must_use]
    pub const fn latency_ns(&self) -> u64 {
        self.latency_ns
    }

    /// The same with another latency.
    #[must_use]
    pub(crate) const fn with_latency_ns(self, latency_ns: u64) -> Self {
        Self { latency_ns, ..self }
    }

    pub(crate) const fn is_measured(&self) -> bool {
        self.measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_break_even_follows_the_price() {
        let cost = WakeCost::measured(Duration::from_micros(20), Duration::from_micros(5));
        assert_eq!(cost.break_even_ns(), 25_000);
        assert_eq!(cost.priced(25).break_even_ns(), 85_000);
        assert_eq!(cost.priced(400).break_even_ns(), 10_000);
        assert_eq!(cost.priced(0).break_even_ns(), 2_005_000);
        assert_eq!(
            WakeCost::measured(Duration::MAX, Duration::MAX).break_even_ns(),
            u64::MAX / 100 + i64::MAX.unsigned_abs()
        );
    }
}
