//! The [`Clock`] trait, and a clock that only moves when told to.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use crate::Moment;
use crate::sync::{AtomicU64, Ordering};

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

    /// Stands still, and has nothing to say of its own.
    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Moment {
            Moment::from_nanos(1)
        }
        fn is_running(&self) -> bool {
            false
        }
    }

    fn shows_the_same(shared: &impl Clock, running: bool, passes: bool) {
        assert_eq!(shared.is_running(), running);
        assert_eq!(shared.pass(Duration::from_nanos(5)), passes);
    }

    #[test]
    fn t2_a_shared_clock_is_the_clock() {
        shows_the_same(&Rc::new(Still), false, false);
        shows_the_same(&Arc::new(Still), false, false);
        let (by_rc, by_arc) = (Rc::new(ManualClock::new()), Arc::new(ManualClock::new()));
        shows_the_same(&by_rc, true, true);
        shows_the_same(&by_arc, true, true);
        assert_eq!(
            (by_rc.now(), by_arc.now()),
            (Moment::from_nanos(5), Moment::from_nanos(5))
        );
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
