//! The deadlines of an [`Interval`](crate::Interval), and its pauses.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{Context, Moment, Source, Timer};

/// A member of a group, which disarms the timer during a pause.
pub(crate) struct Member {
    pub(crate) timer: Rc<Timer>,
    /// The next deadline.
    pub(crate) due: Rc<Cell<Moment>>,
}

impl Source for Member {
    fn poll(&self) -> bool {
        false
    }

    fn poll_ready(&self, _cx: &Context) {}

    fn paused(&self) {
        self.timer.cancel();
    }

    fn resumed(&self) {
        self.timer.arm_at(self.due.get());
    }
}

/// Returns the number of deadlines that have passed, including the one at `due`, and the next one.
pub(crate) fn passed(due: Moment, now: Moment, period: Duration) -> (u64, Moment) {
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
