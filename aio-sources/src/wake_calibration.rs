//! [`WakeCalibration`]: the cost of a sleep for polling parameters, measured at start and while a loop runs.

use std::io;
use std::time::{Duration, Instant};

use aio_context::{Remote, WakeCost};
use aio_notify::SleepMeter;
use aio_pollctl::{Calibration, SleepBatch};

/// The longest time of the measurement at start.
const LONGEST_START: Duration = Duration::from_millis(40);

/// Measures the cost of a short sleep that another thread ends, for
/// [`PollParams::with_measured_wake`](aio_context::PollParams::with_measured_wake). Takes about 12 ms, at
/// most 45.
///
/// As [`WakeCalibration::start`], for programs that measure once.
///
/// # Errors
/// The error of the system for an eventfd or a thread.
pub fn measure_wake_cost() -> io::Result<WakeCost> {
    Ok(WakeCalibration::start()?.cost())
}

/// Measures the cost of a sleep, at start and again while a loop runs (rule A12).
///
/// Other load on the machine disturbs measurements, for a moment or for minutes, so one measurement proves
/// little. [`WakeRefinement`](crate::WakeRefinement) measures again when the loop is idle, and passes the
/// result to the loop.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use aio_context::{Context, PollParams};
/// use aio_sources::WakeCalibration;
///
/// # fn main() -> std::io::Result<()> {
/// let mut calibration = WakeCalibration::start()?;
/// let params = PollParams::up_to(Duration::from_micros(50)).with_measured_wake(calibration.cost());
/// let cx = Context::builder().poll_params(params).build()?;
/// // Later, when it has nothing to do:
/// calibration.measure()?;
/// calibration.refine(&cx.remote());
/// assert_eq!(cx.remote().poll_params().wake_or_assumed(), calibration.cost());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct WakeCalibration {
    meter: SleepMeter,
    calibration: Calibration,
    kick: Option<Duration>,
    cost: WakeCost,
}

impl WakeCalibration {
    /// Measures eight times 16 sleeps, each on the next of the cores that the calling thread may use. Takes
    /// about 12 ms, at most 45.
    ///
    /// Call it on the thread that will run the context, after it was bound to its core. If the machine is too
    /// busy to be measured in that time, the cost is a [typical](WakeCost::ASSUMED) one at first.
    ///
    /// # Errors
    /// The error of the system for an eventfd or a thread.
    pub fn start() -> io::Result<Self> {
        let mut this = Self {
            meter: SleepMeter::new(),
            calibration: Calibration::new(),
            kick: None,
            cost: WakeCost::ASSUMED,
        };
        let began = Instant::now();
        for _ in 0..Calibration::FIRST {
            if began.elapsed() < LONGEST_START {
                this.measure()?;
            }
        }
        match this.calibration.news() {
            Some(cost) => this.cost = cost,
            None => tracing::info!(
                "the machine is too busy to measure the cost of a sleep; a usual one is assumed for now"
            ),
        }
        tracing::debug!(cost = ?this.cost, spread_percent = this.spread_percent(), "the cost of a sleep, as measured");
        Ok(this)
    }

    /// Sets the peer's time for a kick, which is then not measured.
    #[must_use]
    pub fn with_kick(self, kick: Duration) -> Self {
        Self {
            kick: Some(kick),
            ..self
        }
    }

    /// Returns the cost of a sleep: that of the start until a later one differs by more than an eighth.
    #[must_use]
    pub fn cost(&self) -> WakeCost {
        self.cost.with_kick(self.kick.unwrap_or(self.cost.kick))
    }

    /// Returns the spread of the batches of sleeps, in percent of the cost: a few percent on a quiet machine.
    #[must_use]
    pub fn spread_percent(&self) -> u32 {
        self.calibration.spread_percent()
    }

    /// Returns the number of batches of sleeps that were measured.
    #[must_use]
    pub const fn batches(&self) -> u64 {
        self.calibration.batches()
    }

    /// Measures 16 more sleeps, on two threads for the purpose. Takes one to five milliseconds, during which
    /// the calling thread sleeps. If a core is too busy to be measured, nothing changes.
    ///
    /// # Errors
    /// The error of the system for an eventfd or a thread.
    pub fn measure(&mut self) -> io::Result<()> {
        if let Some(sleep) = self.meter.measure()? {
            self.calibration.record(SleepBatch::new(WakeCost {
                latency: sleep.latency,
                cpu: sleep.cpu,
                kick: sleep.kick,
            }));
        }
        Ok(())
    }

    /// Passes the present estimate to a loop, if it differs from the last one by more than an eighth: see
    /// [`Remote::refine_wake_cost`]. The loop's figures show the measurement in any case. Returns whether the
    /// loop has another cost.
    pub fn refine(&mut self, remote: &Remote) -> bool {
        let news = self.calibration.news();
        self.cost = news.unwrap_or(self.cost);
        remote.wake_cost_measured(self.batches(), self.spread_percent());
        let has_changed = news.is_some() && remote.refine_wake_cost(self.cost());
        if has_changed {
            tracing::info!(
                cost = ?self.cost(),
                spread_percent = self.spread_percent(),
                batches = self.batches(),
                "the cost of a sleep, as measured anew"
            );
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use aio_context::{Context, PollParams};

    use super::*;

    #[test]
    fn a_measured_cost_is_known() {
        let cost = measure_wake_cost().expect("there are descriptors left");
        assert!(!cost.is_unknown());
    }

    #[test]
    fn a12_a_loop_gets_what_was_measured_and_keeps_what_was_given() {
        let mut calibration = WakeCalibration::start().unwrap();
        let unlike = WakeCost::of_total(calibration.cost().latency * 10);
        let params = PollParams::up_to(Duration::from_micros(50)).with_measured_wake(unlike);
        let cx = Context::builder().poll_params(params).build().unwrap();
        let remote = cx.remote();
        assert_eq!(remote.poll_params().wake_or_assumed(), unlike);
        // The start has adopted its own cost already, so batches of that cost change nothing.
        let mut is_refined = false;
        while remote.stats().wake_batches < 16 {
            calibration.measure().unwrap();
            is_refined |= calibration.refine(&remote);
        }
        let cost = remote.poll_params().wake_or_assumed();
        assert_eq!(cost, if is_refined { calibration.cost() } else { unlike });
        remote.set_poll_params(params.with_wake(unlike));
        calibration.measure().unwrap();
        assert!(!calibration.refine(&remote), "a given cost is kept");
        assert_eq!(remote.poll_params().wake_or_assumed(), unlike);
        assert_eq!(remote.stats().wake_batches, calibration.batches());
    }

    #[test]
    fn a11_a_given_kick_is_kept() {
        let kick = Duration::from_micros(77);
        let calibration = WakeCalibration::start().unwrap().with_kick(kick);
        assert_eq!(calibration.cost().kick, kick);
        assert!(!calibration.cost().latency.is_zero());
    }
}
