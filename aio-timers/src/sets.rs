//! [`TimerSets`]: the timers of several clocks, of which a loop reads only those in use.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::ops::Deref;

use crate::{Clock, TimerSet};

/// A [`TimerSet`] for each of `N` clocks, with a record of the sets that have timers armed.
///
/// A loop with several clocks and few timers would read all its clocks, or at least all its sets, in every
/// iteration. With this it reads one number instead. Handles to timers keep the [`ClockTimers`] of their
/// clock, with a value of the loop's own (`W`) beside it, such as a handle that ends a wait that has become
/// too long. When this is dropped, all timers are removed, even if handles to them exist.
///
/// ```
/// use aio_timers::{ManualClock, TimerSets};
/// use core::time::Duration;
///
/// let sets = TimerSets::new([ManualClock::new(), ManualClock::new()], ());
/// let timers = sets.get(1);
/// let timer = timers.insert("second");
/// assert!(!sets.has_armed());
/// timers.arm(|set| set.arm_after(timer, Duration::from_millis(5)));
/// assert!(sets.has_armed());
/// let left = sets.in_use().filter_map(|timers| timers.time_left()).min();
/// assert_eq!(left, Some(Duration::from_millis(5)));
///
/// timers.clock().advance(Duration::from_millis(5));
/// assert!(sets.fire(|timers| timers.fire_due(|name, _| println!("{name}")), |_| ()));
/// assert!(!sets.fire(|_| false, |clock| assert_eq!(clock, 1)));
/// assert!(!sets.has_armed());
/// ```
pub struct TimerSets<F, C: Clock, W, const N: usize> {
    by_clock: [Rc<ClockTimers<F, C, W>>; N],
    in_use: Rc<Cell<u32>>,
}

/// The timers of one clock of a [`TimerSets`]: a [`TimerSet`] that is armed by [`arm`](Self::arm) only.
///
/// # Examples
/// ```
/// use aio_timers::{ManualClock, TimerSets};
/// use core::time::Duration;
///
/// let sets = TimerSets::new([ManualClock::new(), ManualClock::new()], "beside");
/// let timers = sets.get(1);
/// let timer = timers.insert(|| ());
/// timers.arm(|set| set.arm_after(timer, Duration::from_millis(5)));
/// assert_eq!((timers.position(), *timers.beside()), (1, "beside"));
/// assert_eq!(timers.time_left(), Some(Duration::from_millis(5)));
/// ```
pub struct ClockTimers<F, C, W> {
    set: TimerSet<F, C>,
    /// The clock's bit in `in_use`.
    bit: u32,
    /// A bit for each clock that may have timers armed, shared by all clocks. Arming sets it, and a loop that
    /// finds no armed timer clears it.
    in_use: Rc<Cell<u32>>,
    beside: W,
}

impl<F, C, W> ClockTimers<F, C, W> {
    /// Returns the position of the clock.
    #[must_use]
    #[inline]
    pub fn position(&self) -> usize {
        self.bit.trailing_zeros() as usize
    }

    /// Returns the loop's value.
    #[must_use]
    #[inline]
    pub fn beside(&self) -> &W {
        &self.beside
    }

    /// Calls `arm`, which arms a timer of the set, and returns its result. A timer that is armed in any other
    /// way may never fire.
    #[inline(always)]
    pub fn arm<R>(&self, arm: impl FnOnce(&TimerSet<F, C>) -> R) -> R {
        self.in_use.set(self.in_use.get() | self.bit);
        arm(&self.set)
    }
}

impl<F, C, W> Deref for ClockTimers<F, C, W> {
    type Target = TimerSet<F, C>;

    #[inline]
    fn deref(&self) -> &TimerSet<F, C> {
        &self.set
    }
}

impl<F, C: Clock, W: Clone, const N: usize> TimerSets<F, C, W, N> {
    /// Creates an empty set for each clock.
    #[must_use]
    pub fn new(clocks: [C; N], beside: W) -> Self {
        Self::sharing(clocks, beside, Rc::default())
    }

    /// As [`new`](Self::new). The lowest `N` bits of `word` show which clocks may have timers armed; the others are the caller's.
    #[must_use]
    pub fn sharing(clocks: [C; N], beside: W, word: Rc<Cell<u32>>) -> Self {
        const { assert!(N < 32, "a bit for each clock") };
        let in_use = word;
        let mut bits = (0..).map(|position| 1 << position);
        let by_clock = clocks.map(|clock| {
            Rc::new(ClockTimers {
                set: TimerSet::new(clock),
                bit: bits.next().unwrap_or_default(),
                in_use: in_use.clone(),
                beside: beside.clone(),
            })
        });
        Self { by_clock, in_use }
    }
}

impl<F, C: Clock, W, const N: usize> TimerSets<F, C, W, N> {
    /// The bits of all clocks.
    const ALL: u32 = (1 << N) - 1;

    /// Returns the timers of the clock at this position.
    ///
    /// # Panics
    /// If there is no such clock.
    #[must_use]
    #[inline]
    pub fn get(&self, clock: usize) -> &Rc<ClockTimers<F, C, W>> {
        &self.by_clock[clock]
    }

    /// Returns whether timers may be armed: `true` until [`fire`](Self::fire) has found none.
    #[must_use]
    #[inline]
    pub fn has_armed(&self) -> bool {
        self.in_use.get() & Self::ALL != 0
    }

    /// Returns the timers of the clocks that may have timers armed, in the order of the clocks.
    #[inline]
    pub fn in_use(&self) -> impl Iterator<Item = &Rc<ClockTimers<F, C, W>>> {
        let mut bits = self.in_use.get() & Self::ALL;
        core::iter::from_fn(move || {
            if bits == 0 {
                return None;
            }
            let lowest = bits.trailing_zeros();
            bits &= bits - 1;
            self.by_clock.get(lowest as usize)
        })
    }

    /// Calls `fire_due` for each clock that has timers armed, to fire them, for instance by
    /// [`TimerSet::fire_due`]. Returns whether one of these calls returned `true`. `unused` gets the position
    /// of each clock that has no timer armed any longer.
    #[inline]
    pub fn fire(
        &self,
        fire_due: impl FnMut(&Rc<ClockTimers<F, C, W>>) -> bool,
        unused: impl FnMut(usize),
    ) -> bool {
        self.has_armed() && self.fire_armed(fire_due, unused)
    }

    #[inline(never)]
    fn fire_armed(
        &self,
        mut fire_due: impl FnMut(&Rc<ClockTimers<F, C, W>>) -> bool,
        mut unused: impl FnMut(usize),
    ) -> bool {
        let mut has_fired = false;
        for timers in self.in_use() {
            if timers.next_deadline().is_some() {
                has_fired |= fire_due(timers);
            } else {
                self.in_use.set(self.in_use.get() & !timers.bit);
                unused(timers.position());
            }
        }
        has_fired
    }
}

impl<F, C: Clock, W, const N: usize> Drop for TimerSets<F, C, W, N> {
    /// Drops the callbacks. Handles keep the sets themselves, and a callback may keep a handle.
    fn drop(&mut self) {
        for timers in &self.by_clock {
            timers.set.clear();
        }
    }
}

impl<F, C: Clock, W, const N: usize> fmt::Debug for TimerSets<F, C, W, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets = self.by_clock.iter().map(|timers| &timers.set);
        f.debug_list().entries(sets).finish()
    }
}

impl<F, C: Clock, W> fmt::Debug for ClockTimers<F, C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClockTimers")
            .field("position", &self.position())
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, target_has_atomic = "64"))]
mod tests {
    use alloc::vec::Vec;
    use core::time::Duration;

    use super::*;
    use crate::{ManualClock, Moment};

    fn positions<F, W>(sets: &TimerSets<F, ManualClock, W, 3>) -> Vec<usize> {
        sets.in_use().map(|timers| timers.position()).collect()
    }

    #[test]
    fn t1_a_clock_is_in_use_from_arming_until_none_of_its_timers_is_armed() {
        let sets = TimerSets::new([(); 3].map(|()| ManualClock::new()), "beside");
        let ids = [0, 1, 2].map(|clock| sets.get(clock).insert(clock));
        assert!(!sets.has_armed() && positions(&sets).is_empty());
        for clock in [2, 0] {
            assert!(
                sets.get(clock)
                    .arm(|set| set.arm_at(ids[clock], Moment::from_nanos(5)))
            );
        }
        assert_eq!(
            (positions(&sets), *sets.get(2).beside()),
            (Vec::from([0, 2]), "beside")
        );
        sets.get(2).clock().advance(Duration::from_nanos(5));
        let (mut fired, mut unused) = (Vec::new(), Vec::new());
        for has_fired in [true, false] {
            let fire_due = |timers: &Rc<ClockTimers<_, _, _>>| {
                timers.fire_due(|clock, id| {
                    assert_eq!(id, ids[*clock]);
                    fired.push(*clock);
                })
            };
            assert_eq!(sets.fire(fire_due, |clock| unused.push(clock)), has_fired);
        }
        assert_eq!(
            (fired, unused, positions(&sets)),
            (Vec::from([2]), Vec::from([2]), Vec::from([0]))
        );
    }

    #[test]
    fn r8_callbacks_are_dropped_with_the_sets_though_handles_are_left() {
        let sets = TimerSets::new([ManualClock::new()], ());
        let (timers, callback) = (sets.get(0).clone(), Rc::new(()));
        let id = timers.insert(callback.clone());
        timers.arm(|set| set.arm_at(id, Moment::ZERO));
        drop(sets);
        assert_eq!((Rc::strong_count(&callback), timers.deadline(id)), (1, None));
    }
}
