//! [`TimerSet`]: a clock's timers with a callback each, run so that a callback may use the set.
//!
//! A running callback is out of the queue, in the [`RunSlot`] of its run. Nothing of the set is borrowed
//! during the call, and timers need no reference counts.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use crate::{Clock, Moment, TimerId, TimerQueue};

/// Timers that follow one clock, with a callback each.
///
/// `F` is the callback, of any type: [`fire_due`](Self::fire_due) passes each due one to a closure of the
/// loop, which calls it with arguments of its choice.
///
/// # Re-entrancy
/// The set holds no borrow while a callback runs or is dropped. A callback may arm, cancel and remove its own
/// and other timers, insert new ones, and call [`fire_due`](Self::fire_due) again. A nested run takes over
/// the remaining due timers of the outer one, and may fire the very timer whose callback is running. If a
/// callback panics, its timer keeps it, and the timers that were due behind it fire in the next run.
///
/// # Order
/// Timers fire in the order of their deadlines, timers with equal deadlines in the order of arming. A run reads the clock once.
/// A timer that is armed during a run, even for a moment in the past, fires in the next run at the earliest.
///
/// # Cost
/// Arming and cancelling take O(log n), firing takes O(log n) for each due timer. They allocate only when
/// more timers are armed, or more runs nested, than ever before. A set belongs to one thread.
///
/// ```
/// use aio_timers::{ManualClock, TimerSet};
/// use core::time::Duration;
///
/// let timers = TimerSet::new(ManualClock::new());
/// let tick = timers.insert("tick");
/// timers.arm_after(tick, Duration::from_millis(5));
/// assert_eq!(timers.time_left(), Some(Duration::from_millis(5)));
///
/// timers.clock().advance(Duration::from_millis(5));
/// let mut fired = Vec::new();
/// assert!(timers.fire_due(|name, id| {
///     fired.push(*name);
///     timers.arm_after(id, Duration::from_millis(5)); // a periodic timer
/// }));
/// assert_eq!((fired, timers.time_left()), (vec!["tick"], Some(Duration::from_millis(5))));
/// ```
pub struct TimerSet<F, C> {
    clock: C,
    state: RefCell<State<F>>,
}

struct State<F> {
    queue: TimerQueue<F>,
    /// The first `depth` belong to the runs under way, the outermost first; the others are spare.
    slots: Vec<Rc<RunSlot<F>>>,
    depth: usize,
}

/// Holds the callback that a run is calling. A nested run that fires the same timer finds it here.
struct RunSlot<F>(RefCell<Option<(TimerId, F)>>);

impl<F> State<F> {
    /// Returns the slot of the outer run that is calling this timer's callback.
    #[cold]
    fn find_running(&self, id: TimerId) -> Option<Rc<RunSlot<F>>> {
        let is_its = |slot: &&Rc<RunSlot<F>>| slot.0.borrow().as_ref().is_some_and(|(its, _)| *its == id);
        self.slots[..self.depth].iter().find(is_its).cloned()
    }
}

impl<F, C: Clock> TimerSet<F, C> {
    /// Creates an empty set whose timers follow `clock`.
    #[must_use]
    pub const fn new(clock: C) -> Self {
        let state = State {
            queue: TimerQueue::new(),
            slots: Vec::new(),
            depth: 0,
        };
        Self {
            clock,
            state: RefCell::new(state),
        }
    }

    /// Returns the clock that the timers follow.
    #[must_use]
    #[inline]
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// Adds a timer, not armed.
    ///
    /// # Panics
    /// If the set holds more than two thousand million timers.
    pub fn insert(&self, callback: F) -> TimerId {
        self.state.borrow_mut().queue.insert(callback)
    }

    /// Removes a timer, armed or not. Returns its callback; `None` if the id is stale or the callback is
    /// running. A running callback is dropped when its outermost call has returned.
    pub fn remove(&self, id: TimerId) -> Option<F> {
        self.state.borrow_mut().queue.remove(id)
    }

    /// Arms a timer for `deadline`, or moves it there. A deadline in the past fires in the next run, [`Moment::NEVER`] never.
    ///
    /// Returns whether this timer's deadline is now the earliest of the set, so that a wait that is about to
    /// begin must be shorter. Returns `false` also for a stale id.
    #[inline(always)]
    pub fn arm_at(&self, id: TimerId, deadline: Moment) -> bool {
        self.state.borrow_mut().queue.arm(id, deadline)
    }

    /// Arms a timer for `delay` from now, or moves it there. Returns the same as [`arm_at`](Self::arm_at).
    #[inline]
    pub fn arm_after(&self, id: TimerId, delay: Duration) -> bool {
        let deadline = self.clock.now().saturating_add(delay);
        self.arm_at(id, deadline)
    }

    /// Arms a timer for `deadline` unless it is armed for the same or an earlier moment, or due. Returns the same as
    /// [`arm_at`](Self::arm_at).
    #[inline(always)]
    pub fn anticipate(&self, id: TimerId, deadline: Moment) -> bool {
        self.state.borrow_mut().queue.anticipate(id, deadline)
    }

    /// Disarms a timer. Returns whether it was armed, or due and not fired yet.
    #[inline(always)]
    pub fn cancel(&self, id: TimerId) -> bool {
        self.state.borrow_mut().queue.cancel(id)
    }

    /// Returns the deadline of a timer: [`Moment::ZERO`] if it is due and not fired yet, `None` if it is not
    /// armed.
    #[must_use]
    pub fn deadline(&self, id: TimerId) -> Option<Moment> {
        self.state.borrow().queue.deadline(id)
    }

    /// Returns the earliest deadline: [`Moment::ZERO`] while a due timer has not fired yet, `None` if no
    /// timer is armed.
    #[must_use]
    #[inline(always)]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.state.borrow().queue.next_deadline()
    }

    /// Returns the time until the next timer is due. `None` if no timer is armed, if all are armed for
    /// [`Moment::NEVER`], or while the clock is stopped.
    #[must_use]
    #[inline]
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = self.next_deadline()?;
        if deadline == Moment::NEVER || !self.clock.is_running() {
            return None;
        }
        if deadline == Moment::ZERO {
            return Some(Duration::ZERO);
        }
        Some(deadline.since(self.clock.now()))
    }

    /// As [`time_left`](Self::time_left), but at most the result of `longest`. If a timer is armed, except
    /// for [`Moment::NEVER`], this calls `longest` first, before it reads the clock. For a clock that may be
    /// set: the loop begins to watch for that in `longest`.
    ///
    /// ```
    /// use aio_timers::{ManualClock, Moment, TimerSet};
    /// use core::time::Duration;
    ///
    /// let (set, second) = (TimerSet::new(ManualClock::new()), Duration::from_secs(1));
    /// let timer = set.insert("daily");
    /// assert_eq!(set.time_left_within(|| unreachable!("no timer is armed")), None);
    /// set.arm_at(timer, Moment::ZERO.saturating_add(Duration::from_secs(86_400)));
    /// assert_eq!(set.time_left_within(|| second), Some(second));
    /// ```
    #[must_use]
    pub fn time_left_within(&self, longest: impl FnOnce() -> Duration) -> Option<Duration> {
        self.next_deadline().filter(|at| *at != Moment::NEVER)?;
        let longest = longest();
        Some(self.time_left()?.min(longest))
    }

    /// Passes every due timer to `call`, one after the other. Returns whether there was one. While the clock
    /// is stopped nothing is due.
    ///
    /// A timer that fires is disarmed before the call.
    ///
    /// # Panics
    /// If `call` panics. The callback is back in the set then, and timers that were due behind it fire in the next run.
    #[inline(always)]
    pub fn fire_due(&self, call: impl FnMut(&F, TimerId)) -> bool {
        let Some(deadline) = self.next_deadline() else {
            return false;
        };
        if !self.clock.is_running() {
            return false;
        }
        let now = self.clock.now();
        now >= deadline && self.fire_due_at(now, call)
    }

    fn fire_due_at(&self, now: Moment, mut call: impl FnMut(&F, TimerId)) -> bool {
        let run = self.begin_run(now);
        let mut has_fired = false;
        while run.fire_next(&mut call) {
            has_fired = true;
        }
        has_fired
    }

    fn begin_run(&self, now: Moment) -> Run<'_, F, C> {
        let mut state = self.state.borrow_mut();
        state.queue.begin(now);
        if state.depth == state.slots.len() {
            state.slots.push(Rc::new(RunSlot(RefCell::new(None))));
        }
        let slot = state.slots[state.depth].clone();
        state.depth += 1;
        Run { set: self, slot }
    }

    /// Removes all timers and drops their callbacks. Their ids become stale. A running callback is dropped
    /// when its outermost call has returned.
    pub fn clear(&self) {
        let removed = self.state.borrow_mut().queue.take_all();
        drop(removed);
    }

    /// Returns the number of timers, armed or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.borrow().queue.len()
    }

    /// Returns whether there are no timers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<F, C: fmt::Debug> fmt::Debug for TimerSet<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("TimerSet")
            .field("clock", &self.clock)
            .field("timers", &state.queue.len())
            .field("next_deadline", &state.queue.next_deadline())
            .finish_non_exhaustive()
    }
}

/// A call of `fire_due`. On drop, also by a panic, it returns its callback to the queue.
struct Run<'a, F, C> {
    set: &'a TimerSet<F, C>,
    slot: Rc<RunSlot<F>>,
}

impl<F, C> Run<'_, F, C> {
    /// Fires the next due timer. Returns `false` if there is none.
    #[inline]
    fn fire_next(&self, call: &mut impl FnMut(&F, TimerId)) -> bool {
        let mut state = self.set.state.borrow_mut();
        let Some(id) = state.queue.next_due() else {
            return false;
        };
        let outer = match state.queue.value_mut(id).and_then(Option::take) {
            Some(callback) => {
                self.slot.0.replace(Some((id, callback)));
                None
            }
            None => state.find_running(id),
        };
        drop(state);
        let running = outer.as_ref().unwrap_or(&self.slot).0.borrow();
        if let Some((_, callback)) = &*running {
            debug_assert!(self.set.state.try_borrow_mut().is_ok(), "borrowed in a callback");
            call(callback, id);
        }
        drop(running);
        self.put_back();
        true
    }

    /// Returns the callback to the queue. If its timer was removed, drops it, outside the borrow.
    #[inline]
    fn put_back(&self) {
        let Some((id, callback)) = self.slot.0.take() else {
            return;
        };
        let mut state = self.set.state.borrow_mut();
        let Some(value) = state.queue.value_mut(id) else {
            drop(state);
            return drop(callback);
        };
        *value = Some(callback);
    }
}

impl<F, C> Drop for Run<'_, F, C> {
    fn drop(&mut self) {
        self.set.state.borrow_mut().depth -= 1;
        self.put_back();
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
