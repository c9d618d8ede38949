//! [`TimerHandle`]: owns a timer of a clock, or is lent to a callback.

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use crate::{Clock, ClockTimers, Moment, TimerId};

/// Owns a timer of a [`ClockTimers`]: dropping it removes the timer. [`ClockTimers::add`] makes one.
///
/// It may outlive the [`TimerSets`](crate::TimerSets). Its functions have no effect then.
///
/// # Examples
/// ```
/// use aio_timers::{ManualClock, Moment, TimerSets};
/// use core::time::Duration;
///
/// let sets = TimerSets::new([ManualClock::new()], ());
/// let timer = sets.get(0).add("tick");
/// assert!(timer.arm_after(Duration::from_secs(1)), "a wait that has begun must be shorter");
/// assert_eq!(timer.deadline(), Some(Moment::from_nanos(1_000_000_000)));
/// drop(timer);
/// assert!(sets.get(0).is_empty());
/// ```
#[must_use = "dropped at once, the timer never fires"]
pub struct TimerHandle<F, C: Clock, W> {
    timers: Rc<ClockTimers<F, C, W>>,
    /// `None` in a handle that was lent to a callback, when it is dropped: the drop then removes nothing.
    id: Option<TimerId>,
}

impl<F, C: Clock, W> TimerHandle<F, C, W> {
    /// Returns the timers of its clock.
    #[inline]
    #[must_use]
    pub fn timers(&self) -> &Rc<ClockTimers<F, C, W>> {
        &self.timers
    }

    /// Arms the timer: see [`TimerSet::arm_at`](crate::TimerSet::arm_at). Returns whether a wait that is about to begin must be shorter.
    #[inline(always)]
    pub fn arm_at(&self, deadline: Moment) -> bool {
        let arm = |id| self.timers.arm(|set| set.arm_at(id, deadline));
        self.id.is_some_and(arm)
    }

    /// Arms the timer for `delay` from now. Returns the same as [`arm_at`](Self::arm_at).
    #[inline]
    pub fn arm_after(&self, delay: Duration) -> bool {
        self.arm_at(self.timers.clock().now().saturating_add(delay))
    }

    /// Arms the timer, unless it is armed for an earlier moment: see [`TimerSet::anticipate`](crate::TimerSet::anticipate). Returns the same as
    /// [`arm_at`](Self::arm_at).
    #[inline(always)]
    pub fn anticipate(&self, deadline: Moment) -> bool {
        let arm = |id| self.timers.arm(|set| set.anticipate(id, deadline));
        self.id.is_some_and(arm)
    }

    /// Disarms the timer. Returns whether it was armed, or due and not fired yet.
    #[inline(always)]
    pub fn cancel(&self) -> bool {
        self.id.is_some_and(|id| self.timers.cancel(id))
    }

    /// Returns the deadline; `None` if the timer is not armed, or was removed: see
    /// [`TimerSet::deadline`](crate::TimerSet::deadline).
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.timers.deadline(self.id?)
    }

    /// Removes the timer, and returns its callback: see [`TimerSet::remove`](crate::TimerSet::remove).
    /// Afterwards the handle has no effect.
    pub fn remove(&self) -> Option<F> {
        self.timers.remove(self.id?)
    }
}

impl<F, C: Clock, W> Drop for TimerHandle<F, C, W> {
    fn drop(&mut self) {
        drop(self.remove());
    }
}

impl<F, C: Clock, W> fmt::Debug for TimerHandle<F, C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerHandle")
            .field("id", &self.id)
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}

impl<F, C: Clock, W> ClockTimers<F, C, W> {
    /// Adds a timer, not armed, and returns its handle.
    ///
    /// # Panics
    /// If the set holds more than two thousand million timers.
    pub fn add(self: &Rc<Self>, callback: F) -> TimerHandle<F, C, W> {
        TimerHandle {
            timers: self.clone(),
            id: Some(self.insert(callback)),
        }
    }

    /// As [`TimerSet::fire_due`](crate::TimerSet::fire_due), but passes each timer to `call` with a handle,
    /// which is lent. Callbacks that arm their own timers again therefore need not find them. If any timer is
    /// due, `wrap` makes the loop's own type of a handle, once, and `handle` returns the handle in it. A
    /// callback may use the set and its own handle, and may run further timers, which get a handle of their
    /// own.
    ///
    /// # Panics
    /// If `call` panics, as [`TimerSet::fire_due`](crate::TimerSet::fire_due). The timer is not removed.
    ///
    /// ```
    /// use aio_timers::{ClockTimers, ManualClock, TimerHandle, TimerSets};
    /// use core::time::Duration;
    ///
    /// struct Timer(TimerHandle<fn(&Timer), ManualClock, ()>);
    ///
    /// let sets = TimerSets::new([ManualClock::new()], ());
    /// let again: fn(&Timer) = |timer| _ = timer.0.arm_after(Duration::from_secs(1));
    /// let timer = Timer(sets.get(0).add(again));
    /// timer.0.arm_after(Duration::ZERO);
    /// assert!(sets.get(0).fire_lent(Timer, |timer| &mut timer.0, |callback, timer| callback(timer)));
    /// assert!(timer.0.deadline().is_some());
    /// ```
    #[inline]
    pub fn fire_lent<T>(
        self: &Rc<Self>,
        wrap: impl Fn(TimerHandle<F, C, W>) -> T,
        handle: fn(&mut T) -> &mut TimerHandle<F, C, W>,
        mut call: impl FnMut(&F, &T),
    ) -> bool {
        let mut lent = None;
        self.fire_due(|callback, id| {
            let lent = lent.get_or_insert_with(|| {
                let timers = self.clone();
                let timer = wrap(TimerHandle { timers, id: None });
                Lent { timer, handle }
            });
            handle(&mut lent.timer).id = Some(id);
            call(callback, &lent.timer);
        })
    }
}

/// The handle that a callback gets. Dropping it, also by a panic, removes no timer.
struct Lent<T, F, C: Clock, W> {
    timer: T,
    handle: fn(&mut T) -> &mut TimerHandle<F, C, W>,
}

impl<T, F, C: Clock, W> Drop for Lent<T, F, C, W> {
    fn drop(&mut self) {
        (self.handle)(&mut self.timer).id = None;
    }
}

#[cfg(all(test, target_has_atomic = "64"))]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::cell::{Cell, RefCell};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{ManualClock, TimerSets};

    type Callback = Box<dyn Fn(&Timer)>;
    struct Timer(TimerHandle<Callback, ManualClock, ()>);
    type Sets = TimerSets<Callback, ManualClock, (), 1>;

    const SECOND: Duration = Duration::from_secs(1);

    fn sets() -> Sets {
        TimerSets::new([ManualClock::new()], ())
    }

    fn add(sets: &Sets, callback: impl Fn(&Timer) + 'static) -> Timer {
        Timer(sets.get(0).add(Box::new(callback)))
    }

    fn fire(sets: &Sets) -> bool {
        let fire_due = |timers: &Rc<ClockTimers<_, _, _>>| {
            timers.fire_lent(
                Timer,
                |timer| &mut timer.0,
                |callback: &Callback, timer| callback(timer),
            )
        };
        sets.fire(fire_due, |_| ())
    }

    #[test]
    fn p12_a_handle_is_two_words() {
        assert_eq!(size_of::<Timer>(), 2 * size_of::<usize>());
    }

    #[test]
    fn t3_a_handle_arms_and_owns_its_timer() {
        let sets = sets();
        let (timer, other) = (add(&sets, |_| ()), add(&sets, |_| ()));
        let at = Moment::from_nanos;
        assert!(!sets.has_armed() && timer.0.deadline().is_none() && !timer.0.cancel());
        assert!(timer.0.arm_at(at(50)) && sets.has_armed());
        assert!(!timer.0.anticipate(at(60)) && timer.0.anticipate(at(40)));
        assert!(!other.0.arm_after(SECOND), "it is not the earliest");
        assert_eq!(timer.0.deadline(), Some(at(40)));
        assert!(timer.0.cancel() && timer.0.deadline().is_none());
        drop(other);
        assert_eq!(sets.get(0).len(), 1);
        assert!(timer.0.remove().is_some() && timer.0.remove().is_none());
        assert!(!timer.0.arm_at(Moment::ZERO) && sets.get(0).is_empty());
    }

    #[test]
    fn t4_a_callback_arms_its_own_timer_again() {
        let (sets, fired) = (sets(), Rc::new(RefCell::new(Vec::new())));
        let timers: Vec<_> = (1..4)
            .map(|seconds| {
                let log = fired.clone();
                let timer = add(&sets, move |timer| {
                    log.borrow_mut().push(seconds);
                    timer.0.arm_after(seconds * SECOND);
                });
                timer.0.arm_at(Moment::ZERO);
                timer
            })
            .collect();
        assert!(fire(&sets) && !fire(&sets));
        for expected in [vec![1, 2, 3], vec![1], vec![2, 1], vec![3, 1]] {
            assert_eq!(fired.take(), expected);
            sets.get(0).clock().advance(SECOND);
            fire(&sets);
        }
        drop(timers);
        assert!(sets.get(0).is_empty());
    }

    #[test]
    fn d9_a_callback_that_panics_keeps_its_timer_and_one_that_removes_it_does_not() {
        let (sets, panics) = (sets(), Rc::new(Cell::new(true)));
        let flag = panics.clone();
        let timer = add(&sets, move |timer| {
            assert!(!flag.take(), "on purpose");
            drop(timer.0.remove());
        });
        for is_panic in [true, false] {
            timer.0.arm_at(Moment::ZERO);
            let fired = catch_unwind(AssertUnwindSafe(|| fire(&sets)));
            assert_eq!(
                (fired.is_err(), sets.get(0).len()),
                (is_panic, usize::from(is_panic))
            );
        }
    }

    #[test]
    fn d6_a_nested_run_lends_another_handle() {
        let sets = Rc::new(sets());
        let (nested, inner_fired) = (sets.clone(), Rc::new(Cell::new(false)));
        let outer = add(&sets, move |timer| {
            assert!(fire(&nested), "the other timer is due");
            timer.0.arm_at(Moment::from_nanos(7));
        });
        let flag = inner_fired.clone();
        let inner = add(&sets, move |_| flag.set(true));
        for timer in [&outer, &inner] {
            timer.0.arm_at(Moment::ZERO);
        }
        assert!(fire(&sets) && inner_fired.get());
        assert_eq!(
            (outer.0.deadline(), inner.0.deadline()),
            (Some(Moment::from_nanos(7)), None)
        );
        // The callbacks keep the sets.
        drop((outer, inner));
        assert_eq!(Rc::strong_count(&sets), 1);
    }

    #[test]
    fn r8_a_handle_that_outlives_the_sets_has_no_effect() {
        let sets = sets();
        let timer = add(&sets, |_| ());
        drop(sets);
        assert!(!timer.0.arm_at(Moment::ZERO) && timer.0.remove().is_none());
        assert!(timer.0.deadline().is_none() && !timer.0.cancel());
    }
}
