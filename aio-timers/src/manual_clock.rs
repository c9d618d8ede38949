//! [`ManualClock`]: a clock that moves only by calls.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use crate::{Clock, Moment};

/// A clock that moves only when it is set or advanced, or when a loop lets time [pass](Clock::pass) instead
/// of waiting. In a test with it, a timer of an hour fires at once.
///
/// Any thread may read and move it. It needs a target with 64-bit atomics.
///
/// ```
/// use aio_timers::{Clock, ManualClock, Moment};
/// use core::time::Duration;
///
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_nanos(7));
/// assert_eq!(clock.now(), Moment::from_nanos(7));
/// assert!(clock.pass(Duration::from_nanos(1))); // simulated: the caller does not have to wait
/// assert_eq!(clock.now(), Moment::from_nanos(8));
/// ```
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Creates a clock that shows [`Moment::ZERO`].
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Sets the clock to `moment`, earlier or later.
    pub fn set(&self, moment: Moment) {
        self.0.store(moment.as_nanos(), Ordering::Release);
    }

    /// Advances the clock by `duration`, at most to [`Moment::NEVER`].
    pub fn advance(&self, duration: Duration) {
        let step = |nanos| Some(Moment::from_nanos(nanos).saturating_add(duration).as_nanos());
        // The closure never refuses, so neither does the update.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::Acquire))
    }

    fn pass(&self, duration: Duration) -> bool {
        self.advance(duration);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t2_a_manual_clock_moves_only_by_calls() {
        let clock = ManualClock::new();
        assert_eq!(clock.now(), Moment::ZERO);
        assert!(clock.pass(Duration::from_nanos(7)) && clock.is_running());
        assert_eq!(clock.now(), Moment::from_nanos(7));
        clock.set(Moment::from_nanos(3));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Moment::NEVER);
    }

    #[test]
    fn t2_a_manual_clock_is_set_back_and_forth() {
        let clock = ManualClock::new();
        for nanoseconds in [9, 2, 1 << 40] {
            clock.set(Moment::from_nanos(nanoseconds));
            assert_eq!(clock.now(), Moment::from_nanos(nanoseconds));
        }
    }
}
