//! The [`Clock`] trait.

use alloc::rc::Rc;
#[cfg(target_has_atomic = "ptr")]
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use crate::Moment;

/// A source of time, real or simulated.
///
/// A clock may be set forward or back. A wait ends when the clock shows its end, so after it was set back a wait takes so much longer,
/// and one on a clock that runs backwards does not end by itself.
///
/// ```
/// use aio_timers::{Clock, Moment};
/// use std::cell::Cell;
///
/// /// Counts the iterations of a simulation; one takes a microsecond.
/// #[derive(Debug, Default)]
/// struct Iterations(Cell<u64>);
///
/// impl Clock for Iterations {
///     fn now(&self) -> Moment {
///         Moment::from_nanos(self.0.get() * 1000)
///     }
/// }
///
/// let clock = Iterations::default();
/// clock.0.set(3);
/// assert_eq!(clock.now(), Moment::from_nanos(3000));
/// ```
pub trait Clock: fmt::Debug {
    /// Returns the present time.
    fn now(&self) -> Moment;

    /// Returns whether time passes. On a stopped clock nothing becomes due.
    fn is_running(&self) -> bool {
        true
    }

    /// Advances a simulated clock by `duration` at once and returns `true`. A real clock does nothing and
    /// returns `false`: the caller has to wait.
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

#[cfg(target_has_atomic = "ptr")]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    /// A clock that is stopped, and not simulated.
    #[derive(Debug)]
    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Moment {
            Moment::from_nanos(1)
        }
        fn is_running(&self) -> bool {
            false
        }
    }

    fn check(shared: &impl Clock, running: bool, passes: bool) {
        assert_eq!(shared.is_running(), running);
        assert_eq!(shared.pass(Duration::from_nanos(5)), passes);
    }

    #[test]
    fn t2_a_shared_clock_is_the_clock() {
        check(&Rc::new(Stopped), false, false);
        check(&Arc::new(Stopped), false, false);
        let (by_rc, by_arc) = (Rc::new(ManualClock::new()), Arc::new(ManualClock::new()));
        check(&by_rc, true, true);
        check(&by_arc, true, true);
        assert_eq!(
            (by_rc.now(), by_arc.now()),
            (Moment::from_nanos(5), Moment::from_nanos(5))
        );
    }
}
