//! [`wait_for`]: waits for a whole timeout, on a real or a simulated clock. [`Standstill`]: finds a simulated
//! clock that stands still.

use core::time::Duration;

use crate::{Clock, Moment};

/// Waits until there is something to do, or until `timeout` after `began`; `None`: without an end.
///
/// `wait` waits for the time that it gets, or (`None`) without an end, and returns whether there is something
/// to do. It may return early: a signal ends a system call, and a timeout may be rounded down. It is then
/// called again for the remaining time. On a simulated clock it is called once, with a time of zero, and if
/// there is nothing to do the time [passes](Clock::pass) at once.
///
/// # Errors
/// The error of `wait`.
///
/// ```
/// use aio_timers::{Clock, ManualClock, Moment, wait_for};
/// use core::time::Duration;
///
/// let (clock, hour) = (ManualClock::new(), Duration::from_secs(3600));
/// let wait = |left: Option<Duration>| {
///     assert_eq!(left, Some(Duration::ZERO), "time need not pass");
///     Ok::<bool, std::io::Error>(false)
/// };
/// wait_for(&clock, Moment::ZERO, Some(hour), wait)?;
/// assert_eq!(clock.now(), Moment::ZERO.saturating_add(hour));
/// # Ok::<(), std::io::Error>(())
/// ```
#[inline]
pub fn wait_for<E>(
    clock: &(impl Clock + ?Sized),
    began: Moment,
    timeout: Option<Duration>,
    mut wait: impl FnMut(Option<Duration>) -> Result<bool, E>,
) -> Result<(), E> {
    let Some(mut left) = timeout else {
        while !wait(None)? {}
        return Ok(());
    };
    let deadline = began.saturating_add(left);
    if clock.pass(Duration::ZERO) {
        if !wait(Some(Duration::ZERO))? {
            clock.pass(left);
        }
        return Ok(());
    }
    while !wait(Some(left))? {
        left = deadline.since(clock.now());
        if left.is_zero() {
            break;
        }
    }
    Ok(())
}

/// Counts consecutive readings of a clock with the same result. If a simulated clock stands still, a loop
/// that waits for it never ends.
///
/// ```
/// use aio_timers::{Moment, Standstill};
///
/// let mut standstill = Standstill::default();
/// let iterations = (0..1000).take_while(|_| !standstill.lasts(Moment::ZERO));
/// assert_eq!(iterations.count(), 100);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Standstill {
    at: Option<Moment>,
    readings: u32,
}

impl Standstill {
    /// The number of readings that may repeat the one before.
    const MOST: u32 = 100;

    /// Records a reading of the clock. Returns whether 100 readings after the first had the same result.
    pub fn lasts(&mut self, now: Moment) -> bool {
        let stands = self.at.replace(now) == Some(now);
        self.readings = if stands { self.readings + 1 } else { 0 };
        self.readings >= Self::MOST
    }
}

#[cfg(all(test, target_has_atomic = "64"))]
mod tests {
    use alloc::vec::Vec;
    use core::cell::Cell;

    use super::*;
    use crate::ManualClock;

    /// A clock that moves only by waiting.
    #[derive(Debug, Default)]
    struct Real(Cell<u64>);

    impl Clock for Real {
        fn now(&self) -> Moment {
            Moment::from_nanos(self.0.get())
        }
    }

    impl Real {
        /// Waits from moment 5 on. Each wait takes its number of nanoseconds of `waits`; after the last one
        /// there is something to do if `is_found`.
        fn wait(&self, timeout: Option<u64>, waits: &[u64], is_found: bool) -> Vec<Option<u64>> {
            self.0.set(5);
            let (mut asked, mut waits) = (Vec::new(), waits.iter());
            let timeout = timeout.map(Duration::from_nanos);
            let waited = wait_for(self, self.now(), timeout, |left| {
                asked.push(left.map(|left| left.as_nanos() as u64));
                self.0.set(self.0.get() + waits.next().ok_or("no wait is left")?);
                Ok::<_, &str>(is_found && waits.len() == 0)
            });
            assert_eq!((waited, waits.len()), (Ok(()), 0));
            asked
        }
    }

    #[test]
    fn d4_a_wait_that_ends_early_goes_on_for_the_rest_of_its_time() {
        let clock = Real::default();
        let asked = clock.wait(Some(100), &[30, 0, 69, 1], false);
        assert_eq!(asked, [Some(100), Some(70), Some(70), Some(1)]);
        assert_eq!(clock.wait(Some(100), &[30, 80], false), [Some(100), Some(70)]);
        assert_eq!(clock.wait(Some(100), &[30, 20], true), [Some(100), Some(70)]);
        assert_eq!(clock.wait(None, &[1000, 0, 1000], true), [None; 3]);
        assert_eq!(clock.wait(Some(0), &[0], false), [Some(0)], "a check");
        assert_eq!(clock.wait(Some(u64::MAX), &[7], true), [Some(u64::MAX)]);
    }

    #[test]
    fn d6_simulated_time_passes_at_once_unless_there_is_something_to_do() {
        let (clock, second) = (ManualClock::new(), Duration::from_secs(1));
        for (is_found, expected) in [(true, 0), (false, 1), (true, 1), (false, 2)] {
            let mut asked = Vec::new();
            let waited = wait_for(&clock, clock.now(), Some(second), |left| {
                asked.push(left);
                Ok::<_, ()>(is_found)
            });
            assert_eq!((waited, asked), (Ok(()), Vec::from([Some(Duration::ZERO)])));
            assert_eq!(clock.now(), Moment::from_nanos(expected * 1_000_000_000));
        }
        let mut waits = 0;
        let forever = wait_for(&clock, clock.now(), None, |left| {
            waits += 1;
            Ok::<_, ()>(left.is_none() && waits == 3)
        });
        assert_eq!((forever, waits), (Ok(()), 3), "something else must end it");
    }

    #[test]
    fn d4_the_error_of_a_wait_ends_it() {
        for timeout in [None, Some(Duration::from_secs(1))] {
            assert_eq!(
                wait_for(&Real::default(), Moment::ZERO, timeout, |_| Err("broken")),
                Err("broken")
            );
            assert_eq!(
                wait_for(&ManualClock::new(), Moment::ZERO, timeout, |_| Err("broken")),
                Err("broken")
            );
        }
    }

    #[test]
    fn d6_a_clock_that_moves_never_stands_still_for_long() {
        let mut standstill = Standstill::default();
        let mut lasts = |nanos, times: u32| {
            let lasts = |_| standstill.lasts(Moment::from_nanos(nanos));
            (0..times).map(lasts).filter(|lasts| *lasts).count()
        };
        assert_eq!([lasts(0, 100), lasts(1, 100), lasts(0, 100)], [0; 3]);
        assert_eq!([lasts(7, 100), lasts(7, 3), lasts(8, 101)], [0, 3, 1]);
    }
}
