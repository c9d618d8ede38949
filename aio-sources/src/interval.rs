//! [`Interval`]: a callback at a fixed rate.

use std::cell::Cell;
use std::time::Duration;

use aio_context::{ClockId, Context, Moment, Timer};

/// A callback at a fixed rate; dropping it ends it.
///
/// The deadlines are whole periods after the start, however late a callback is and however long it takes, so the rate does not
/// drift. A callback that is late by whole periods is called once for all of them, with their number.
///
/// ```
/// use std::time::Duration;
/// use aio_context::{Context, Wait};
/// use aio_sources::Interval;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let interval = Interval::new(&cx, Duration::from_millis(1), |_cx, ticks| println!("{ticks} ms more"));
/// assert!(cx.poll(Wait::Block)?);
/// # drop(interval); Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it never ticks"]
pub struct Interval {
    timer: Timer,
    period: Duration,
}

impl Interval {
    /// Calls `tick` every `period`, for the first time one period from now. Its argument is the number of deadlines that have
    /// passed since the call before: 1 unless the loop was late.
    ///
    /// `tick` may do anything, poll included: an interval whose callback polls for longer than a period is called inside it.
    /// If it panics, the interval goes on.
    ///
    /// # Panics
    /// If `period` is zero.
    pub fn new(cx: &Context, period: Duration, tick: impl Fn(&Context, u64) + 'static) -> Self {
        Self::on_clock(cx, ClockId::Monotonic, period, tick)
    }

    /// As [`new`](Self::new), on a clock of choice. If the clock is set forward, the deadlines that it has passed are one call; if
    /// it is set back, the next deadline stays.
    ///
    /// # Panics
    /// If `period` is zero.
    pub fn on_clock(
        cx: &Context,
        clock: ClockId,
        period: Duration,
        tick: impl Fn(&Context, u64) + 'static,
    ) -> Self {
        assert!(!period.is_zero(), "the period of an interval cannot be zero");
        let first = cx.now(clock).saturating_add(period);
        let due = Cell::new(first);
        let fire = move |cx: &Context, timer: &Timer| {
            let (ticks, next) = passed(due.get(), cx.now(clock), period);
            // Before the call, for polls inside of it and for panics.
            due.set(next);
            timer.arm_at(next);
            tick(cx, ticks);
        };
        Self {
            timer: cx.timer(clock, fire).armed_at(first),
            period,
        }
    }

    /// Returns the period.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Returns the next deadline. It is [`Moment::ZERO`] while it is due, and `None` once the context is gone.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.timer.deadline()
    }
}

/// How many deadlines have passed, the one at `due` included, and the next one.
fn passed(due: Moment, now: Moment, period: Duration) -> (u64, Moment) {
    let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    let late_ns = now.as_nanos().saturating_sub(due.as_nanos());
    let ticks = (late_ns / period_ns).saturating_add(1);
    let next = due.as_nanos().saturating_add(ticks.saturating_mul(period_ns));
    (ticks, Moment::from_nanos(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t3_deadlines_are_whole_periods_apart_and_saturate() {
        for (due, now, period, expected) in [
            (100, 100, 10, (1, 110)),
            (100, 109, 10, (1, 110)),
            (100, 110, 10, (2, 120)),
            (100, 1_234, 10, (114, 1_240)),
            (100, 0, 10, (1, 110)),
            (100, 100, u64::MAX, (1, u64::MAX)),
            (5, u64::MAX, 1, (u64::MAX - 4, u64::MAX)),
        ] {
            let (ticks, next) = passed(
                Moment::from_nanos(due),
                Moment::from_nanos(now),
                Duration::from_nanos(period),
            );
            assert_eq!((ticks, next.as_nanos()), expected);
        }
        assert_eq!(
            passed(Moment::ZERO, Moment::ZERO, Duration::MAX),
            (1, Moment::NEVER)
        );
    }
}
