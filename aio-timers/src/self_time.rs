//! [`SelfTime`]: the time that callbacks take by themselves, where one may run inside another. [`SlowLimit`]:
//! those that take too long.

use alloc::collections::BTreeSet;
use core::cell::{Cell, RefCell};
use core::time::Duration;

use crate::Moment;

/// Measures the *self time* of a thread's callbacks, which may run inside each other: the time of each
/// without that of the callbacks inside it.
///
/// # Examples
/// ```
/// use aio_timers::{Clock, ManualClock, SelfTime};
/// use core::time::Duration;
///
/// let (clock, times) = (ManualClock::new(), SelfTime::new());
/// let micros = Duration::from_micros;
/// let read = || (clock.now(), Duration::ZERO); // this loop does not sleep in callbacks
/// let mut own = Vec::new();
/// let inner = |own: &mut Vec<_>| times.measure(read, || clock.advance(micros(5)), |took| own.push(took));
/// let mut outer = Duration::ZERO;
/// times.measure(
///     read,
///     || {
///         clock.advance(micros(1));
///         inner(&mut own);
///         clock.advance(micros(2));
///     },
///     |took| outer = took,
/// );
/// assert_eq!((own, outer), (vec![micros(5)], micros(3)));
/// ```
#[derive(Debug, Default)]
pub struct SelfTime {
    /// The time of the callbacks inside the present one.
    nested: Cell<Duration>,
}

impl SelfTime {
    /// Makes a measurement without callbacks.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            nested: Cell::new(Duration::ZERO),
        }
    }

    /// Runs `code`, then passes its self time to `done`, even if `code` panics.
    ///
    /// `read` returns the time, and for how long the thread has slept so far: sleeps inside `code`, such as
    /// those of a nested poll, do not count. It is called twice. `done` must not panic.
    #[inline]
    pub fn measure<R>(
        &self,
        read: impl Fn() -> (Moment, Duration),
        code: impl FnOnce() -> R,
        done: impl FnMut(Duration),
    ) -> R {
        let _measuring = Measuring {
            began: read(),
            outer: self.nested.replace(Duration::ZERO),
            nested: &self.nested,
            read,
            done,
        };
        code()
    }
}

/// A callback that is being measured.
struct Measuring<'a, F: Fn() -> (Moment, Duration), D: FnMut(Duration)> {
    began: (Moment, Duration),
    /// The time of the callbacks that ran inside the outer callback before this one.
    outer: Duration,
    nested: &'a Cell<Duration>,
    read: F,
    done: D,
}

impl<F: Fn() -> (Moment, Duration), D: FnMut(Duration)> Drop for Measuring<'_, F, D> {
    fn drop(&mut self) {
        let ((began, slept_before), (now, slept)) = (self.began, (self.read)());
        let awake = now
            .since(began)
            .saturating_sub(slept.saturating_sub(slept_before));
        let inside = self.nested.replace(self.outer.saturating_add(awake));
        (self.done)(awake.saturating_sub(inside));
    }
}

/// A limit for the time of a callback, and the callbacks that were reported because they exceeded it: each
/// once for each limit. `K` identifies a callback.
///
/// # Examples
/// ```
/// use aio_timers::SlowLimit;
/// use core::time::Duration;
///
/// let slow = SlowLimit::new();
/// slow.set(Some(Duration::from_millis(5)));
/// assert!(slow.exceeded(Duration::from_millis(5)).is_none());
/// let exceeded = slow.exceeded(Duration::from_millis(6)).unwrap();
/// assert_eq!(exceeded.limit, Duration::from_millis(5));
/// assert!(slow.is_first("flush") && !slow.is_first("flush"));
/// ```
#[derive(Debug)]
pub struct SlowLimit<K> {
    limit: Cell<Option<Duration>>,
    /// The number of limits that were ever set.
    limits: Cell<u32>,
    reported: RefCell<BTreeSet<K>>,
}

/// The limit that a callback has exceeded.
///
/// # Examples
/// ```
/// use aio_timers::{Exceeded, SlowLimit};
/// use core::time::Duration;
///
/// let (slow, ms) = (SlowLimit::<&str>::new(), Duration::from_millis);
/// slow.set(Some(ms(5)));
/// // A callback that keeps its own mark is reported once for each limit.
/// let reported_for = Default::default();
/// let is_reported = |took| slow.exceeded(took).is_some_and(|one: Exceeded| one.is_first(&reported_for));
/// assert!(is_reported(ms(6)) && !is_reported(ms(7)));
/// slow.set(Some(ms(4)));
/// assert!(is_reported(ms(6)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exceeded {
    /// The limit.
    pub limit: Duration,
    /// The number of the limit. Each [`SlowLimit::set`] makes another number, until 2^32 of them.
    pub number: u32,
}

impl Exceeded {
    /// Returns whether this is the first call for this limit. `reported_for` holds the number of the limit
    /// for which the callback was reported last; a callback with such a mark needs no
    /// [`SlowLimit::is_first`].
    #[must_use]
    pub fn is_first(self, reported_for: &Cell<Option<u32>>) -> bool {
        reported_for.replace(Some(self.number)) != Some(self.number)
    }
}

impl<K: Ord> SlowLimit<K> {
    /// Makes a value without a limit.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            limit: Cell::new(None),
            limits: Cell::new(0),
            reported: RefCell::new(BTreeSet::new()),
        }
    }

    /// Sets or (`None`) removes the limit. Every callback may be reported again.
    pub fn set(&self, limit: Option<Duration>) {
        self.limit.set(limit);
        self.limits.set(self.limits.get().wrapping_add(1));
        self.reported.borrow_mut().clear();
    }

    /// Returns whether there is a limit, so that callbacks have to be measured.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.limit.get().is_some()
    }

    /// Returns the limit if a callback that took this long has exceeded it.
    #[must_use]
    pub fn exceeded(&self, took: Duration) -> Option<Exceeded> {
        let limit = self.limit.get().filter(|limit| took > *limit)?;
        let number = self.limits.get();
        Some(Exceeded { limit, number })
    }

    /// Returns whether this is the first call for `callback` since the limit was set.
    pub fn is_first(&self, callback: K) -> bool {
        self.reported.borrow_mut().insert(callback)
    }
}

impl<K: Ord> Default for SlowLimit<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::vec::Vec;

    use super::*;

    /// A thread with a clock, which sleeps and runs callbacks inside each other.
    #[derive(Default)]
    struct Thread {
        now: Cell<u64>,
        slept: Cell<u64>,
        times: SelfTime,
        own: RefCell<Vec<(&'static str, u64)>>,
    }

    impl Thread {
        fn work(&self, nanos: u64) {
            self.now.set(self.now.get() + nanos);
        }

        fn sleep(&self, nanos: u64) {
            self.work(nanos);
            self.slept.set(self.slept.get() + nanos);
        }

        fn call(&self, name: &'static str, code: impl FnOnce()) {
            let read = || {
                let now = Moment::from_nanos(self.now.get());
                (now, Duration::from_nanos(self.slept.get()))
            };
            let done = |took: Duration| self.own.borrow_mut().push((name, took.as_nanos() as u64));
            self.times.measure(read, code, done);
        }
    }

    #[test]
    fn m2_the_time_of_a_callback_excludes_callbacks_and_sleeps_inside_it() {
        let thread = Thread::default();
        thread.call("first", || thread.work(3));
        thread.call("outer", || {
            thread.work(10);
            thread.call("middle", || {
                thread.sleep(1000);
                thread.work(20);
                thread.call("inner", || thread.work(400));
            });
            thread.sleep(5000);
            thread.call("inner", || thread.work(7));
            thread.work(2);
        });
        thread.call("last", || thread.work(1));
        let expected = [
            ("first", 3),
            ("inner", 400),
            ("middle", 20),
            ("inner", 7),
            ("outer", 12),
            ("last", 1),
        ];
        assert_eq!(*thread.own.borrow(), expected);
    }

    #[test]
    fn m2_a_callback_that_panics_is_measured_and_so_is_the_one_around_it() {
        let thread = Thread::default();
        thread.call("outer", || {
            thread.work(1);
            let panics = || {
                thread.call("panics", || {
                    thread.work(50);
                    panic!("on purpose");
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            thread.work(2);
        });
        assert_eq!(*thread.own.borrow(), [("panics", 50), ("outer", 3)]);
    }

    #[test]
    fn m2_a_clock_that_goes_back_makes_no_time_of_it() {
        let thread = Thread::default();
        thread.now.set(100);
        thread.call("back", || thread.now.set(40));
        assert_eq!(*thread.own.borrow(), [("back", 0)]);
    }

    #[test]
    fn m2_only_what_takes_longer_is_slow_and_each_limit_reports_anew() {
        let slow = SlowLimit::new();
        assert!(!slow.is_set() && slow.exceeded(Duration::MAX).is_none());
        let (five, six) = (Duration::from_millis(5), Duration::from_millis(6));
        slow.set(Some(five));
        assert!(slow.is_set() && slow.exceeded(five).is_none());
        let first = slow.exceeded(six).unwrap();
        assert_eq!((first.limit, slow.exceeded(six)), (five, Some(first)));
        assert!(slow.is_first("one") && slow.is_first("two") && !slow.is_first("one"));
        slow.set(Some(five));
        let (second, reported_for) = (slow.exceeded(six).unwrap(), Cell::new(None));
        assert_ne!(second.number, first.number);
        let is_first = [first, first, second, second].map(|exceeded| exceeded.is_first(&reported_for));
        assert_eq!(is_first, [true, false, true, false]);
        assert!(slow.is_first("one") && !slow.is_first("one"));
        slow.set(None);
        assert!(!slow.is_set() && slow.exceeded(Duration::MAX).is_none());
    }
}
