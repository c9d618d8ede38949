//! [`WakeRefinement`]: measures the cost of a sleep again while a loop runs.

use std::fmt;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use aio_context::{Remote, Stats};

use crate::WakeCalibration;
use crate::sync::thread::{self, JoinHandle};

/// The time until the first measurement. Each measurement doubles it, up to the second time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Measures the cost of a sleep again and again while a loop runs, and passes it to the loop (rule A12).
///
/// A measurement at start is right for its moment: beside a compiler it may be twice too high. A thread of
/// the refinement measures 16 sleeps 0.1 s later, 0.2 s after that, and so on, finally once a minute. It
/// measures only if the loop has slept for most of the time since: a busy loop is not disturbed, and does not
/// pay for sleeps. The loop's own thread does nothing for it, and its iterations make no additional system
/// call.
///
/// Dropping it ends the thread, and waits for its end: up to five milliseconds. Drop it before the context, or with it.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use aio_context::{Context, PollParams};
/// use aio_sources::{WakeCalibration, WakeRefinement};
///
/// # fn main() -> std::io::Result<()> {
/// let calibration = WakeCalibration::start()?;
/// let params = PollParams::up_to(Duration::from_micros(50)).with_measured_wake(calibration.cost());
/// let cx = Context::builder().poll_params(params).build()?;
/// let refinement = WakeRefinement::start(calibration, &cx.remote())?;
/// // cx.run()?;
/// drop(refinement);
/// # Ok(()) }
/// ```
#[must_use = "dropped at once, it measures nothing"]
pub struct WakeRefinement {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    remote: Remote,
}

impl WakeRefinement {
    /// Starts the thread. It measures on the cores for which `calibration` was started.
    ///
    /// # Errors
    /// The error of the system for a thread.
    pub fn start(mut calibration: WakeCalibration, remote: &Remote) -> io::Result<Self> {
        let (own, remote) = (remote.clone(), remote.clone());
        let (stop, stopped) = mpsc::channel::<()>();
        let mut pace = Pace::new(remote.stats());
        // The figures show the measurement at start at once.
        calibration.refine(&remote);
        let refine = move || {
            while stopped.recv_timeout(pace.pause) == Err(RecvTimeoutError::Timeout) {
                if !pace.is_due(remote.stats()) {
                    continue;
                }
                if let Err(error) = calibration.measure() {
                    tracing::debug!(%error, "the cost of a sleep cannot be measured now");
                }
                calibration.refine(&remote);
            }
        };
        Ok(Self {
            stop: Some(stop),
            thread: Some(
                thread::Builder::new()
                    .name("wake-cost".to_owned())
                    .spawn(refine)?,
            ),
            remote: own,
        })
    }
}

impl Drop for WakeRefinement {
    fn drop(&mut self) {
        if self.remote.is_inherited() {
            // In a forked child the thread does not exist, so there is nothing to wait for.
            std::mem::forget((self.stop.take(), self.thread.take()));
            return;
        }
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic, and has no result.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for WakeRefinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeRefinement").finish_non_exhaustive()
    }
}

/// Decides when to measure.
struct Pace {
    pause: Duration,
    last: Stats,
}

impl Pace {
    fn new(now: Stats) -> Self {
        Self {
            pause: FIRST_PAUSE,
            last: now,
        }
    }

    /// Returns whether to measure now, after a pause, because the loop has slept for most of it. The next
    /// pause is then twice as long.
    fn is_due(&mut self, now: Stats) -> bool {
        let last = std::mem::replace(&mut self.last, now);
        // A sleep counts when it ends. A loop without an iteration sleeps, or is busy in one callback, which
        // seldom lasts.
        let has_slept = now.slept.saturating_sub(last.slept) >= self.pause / 2;
        let is_due = has_slept || now.iterations == last.iterations;
        if is_due {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a12_a_busy_loop_is_not_disturbed_and_an_idle_one_ever_less() {
        let ms = Duration::from_millis;
        let mut now = Stats::default();
        let mut pace = Pace::new(now);
        let mut after = |iterations, slept| {
            now.iterations += iterations;
            now.slept += slept;
            (pace.is_due(now), pace.pause)
        };
        assert_eq!(
            after(1000, ms(49)),
            (false, ms(100)),
            "it was busy for most of the time"
        );
        assert_eq!(after(1000, ms(50)), (true, ms(200)));
        assert_eq!(after(0, ms(0)), (true, ms(400)), "it sleeps all the time");
        assert_eq!(after(1, ms(199)), (false, ms(400)));
        for _ in 0..20 {
            assert!(after(0, ms(0)).0);
        }
        assert_eq!(after(0, ms(0)), (true, LONGEST_PAUSE));
    }
}
