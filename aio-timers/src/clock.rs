//! The [`Clock`] trait, and a clock that only moves when told to.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use crate::Moment;

/// Shows the time.
pub trait Clock: fmt::Debug {
    /// The time now.
    fn now(&self) -> Moment;

    /// Whether time passes. On a clock that stands still nothing becomes due.
    fn is_running(&self) -> bool {
        true
    }

    /// On a simulated clock, lets `duration` pass at once and returns true. A real clock does nothing and returns false:
    /// the caller has to wait.
    fn pass(&self, duration: Duration) -> bool {
        let _ = duration;
        false
    }
}

impl<C: Clock + ?Sized> Clock for Rc<C> {
    fn now(&self) -> Moment {
        (**self).now()
    }
    fn is_running(&self) -> bool {
        (**self).is_running()
    }
    fn pass(&self, duration: Duration) -> bool {
        (**self).pass(duration)
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Moment {
        (**self).now()
    }
    fn is_running(&self) -> bool {
        (**self).is_running()
    }
    fn pass(&self, duration: Duration) -> bool {
        (**self).pass(duration)
    }
}

/// A clock that moves only when it is told to, or when a loop lets time [pass](Clock::pass) instead of waiting: with it a
/// test sees a timer of an hour at once.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows [`Moment::ZERO`].
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Shows `moment` from now on, earlier or later.
    pub fn set(&self, moment: Moment) {
        self.0.store(moment.as_nanos(), Ordering::Release);
    }

    /// Moves on by `duration`.
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
    fn t2_a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new();
        assert_eq!(clock.now(), Moment::ZERO);
        assert!(clock.pass(Duration::from_nanos(7)) && clock.is_running());
        assert_eq!(clock.now(), Moment::from_nanos(7));
        clock.set(Moment::from_nanos(3));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Moment::NEVER);
    }
}
