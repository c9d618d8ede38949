//! [`TimerQueue`]: values with deadlines, and runs that take the due ones.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::heap::{DUE_NUMBERS, Heap, State};
use crate::{Moment, TimerId};

/// Stands for a cancelled timer in the due list.
const TOMBSTONE: u32 = u32::MAX;

/// Timers with a value each, ordered by deadline.
///
/// [`begin`](Self::begin) starts a run: it moves the due timers to a list. [`next_due`](Self::next_due) then takes them one by
/// one. A timer that is armed during a run, even for a moment in the past, belongs to the next run, so a timer that re-arms
/// itself without delay cannot prolong a run for ever. A nested run takes over the remaining timers of the
/// outer run.
///
/// Arming, moving and cancelling take O(log n); the earliest deadline takes O(1). Only [`insert`](Self::insert), the first
/// arming of more timers than ever before, and `begin` with more due timers than ever before may allocate.
///
/// ```
/// use aio_timers::{Moment, TimerQueue};
///
/// let mut queue = TimerQueue::new();
/// let (tea, eggs) = (queue.insert("tea"), queue.insert("eggs"));
/// queue.arm(tea, Moment::from_nanos(180));
/// queue.arm(eggs, Moment::from_nanos(240));
/// assert_eq!(queue.next_deadline(), Some(Moment::from_nanos(180)));
/// queue.begin(Moment::from_nanos(200));
/// assert_eq!(queue.next_due(), Some(tea));
/// assert_eq!(queue.next_due(), None);
/// ```
#[derive(Debug)]
pub struct TimerQueue<T> {
    /// The values by slot. `None` if the slot is vacant, or while the value is taken out.
    values: Vec<Option<T>>,
    pub(crate) heap: Heap,
    /// Slots in the order in which they fire, or [`TOMBSTONE`]s.
    due: VecDeque<u32>,
    /// The number of the first element of `due`. Elements are numbered consecutively; the state of a due
    /// timer holds its number.
    first_due: u32,
    /// The number of elements of `due` that are not tombstones.
    waiting: usize,
    live: usize,
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> TimerQueue<T> {
    /// Creates an empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: Vec::new(),
            heap: Heap::new(),
            due: VecDeque::new(),
            first_due: 0,
            waiting: 0,
            live: 0,
        }
    }

    /// Adds a timer, not armed.
    ///
    /// # Panics
    /// If the queue holds more than two thousand million timers.
    pub fn insert(&mut self, value: T) -> TimerId {
        let id = self.heap.add();
        self.live += 1;
        match self.values.get_mut(id.slot as usize) {
            Some(vacant) => *vacant = Some(value),
            None => self.values.push(Some(value)),
        }
        id
    }

    /// Returns the value of a timer; `None` if the id is stale or the value is taken out.
    #[must_use]
    pub fn get(&self, id: TimerId) -> Option<&T> {
        self.heap.state(id)?;
        self.values[id.slot as usize].as_ref()
    }

    /// Returns a timer's value, to change it or to take it out for a while; `None` if the id is stale.
    #[must_use]
    #[inline]
    pub fn value_mut(&mut self, id: TimerId) -> Option<&mut Option<T>> {
        self.heap.state(id)?;
        Some(&mut self.values[id.slot as usize])
    }

    /// Removes a timer, armed or not. Returns its value; `None` if the id is stale or the value is taken out.
    pub fn remove(&mut self, id: TimerId) -> Option<T> {
        let state = self.heap.state(id)?;
        self.disarm(id.slot, state);
        self.live -= 1;
        self.heap.retire(id.slot);
        self.values[id.slot as usize].take()
    }

    /// Arms a timer, or moves its deadline. Returns whether it is now the earliest; `false` also for a stale
    /// id.
    #[inline(always)]
    pub fn arm(&mut self, id: TimerId, deadline: Moment) -> bool {
        match self.heap.state(id) {
            Some(State::Armed(position)) => self.heap.shift(position, id.slot, deadline),
            Some(State::Idle) => self.heap.push(id.slot, deadline),
            Some(State::Due(number)) => self.arm_due(id.slot, number, deadline),
            None => false,
        }
    }

    #[cold]
    #[inline(never)]
    fn arm_due(&mut self, slot: u32, number: u32, deadline: Moment) -> bool {
        self.bury(slot, number);
        self.heap.push(slot, deadline)
    }

    /// Arms a timer unless it is armed for the same or an earlier moment, or due. Returns whether it became the earliest.
    #[inline]
    pub fn anticipate(&mut self, id: TimerId, deadline: Moment) -> bool {
        match self.heap.state(id) {
            Some(State::Armed(position)) => {
                deadline < self.heap.deadline(position) && self.heap.shift(position, id.slot, deadline)
            }
            Some(State::Idle) => self.heap.push(id.slot, deadline),
            Some(State::Due(_)) | None => false,
        }
    }

    /// Disarms a timer. Returns whether it was armed, or due and not taken yet.
    #[inline]
    pub fn cancel(&mut self, id: TimerId) -> bool {
        self.heap
            .state(id)
            .is_some_and(|state| self.disarm(id.slot, state))
    }

    #[inline]
    fn disarm(&mut self, slot: u32, state: State) -> bool {
        match state {
            State::Armed(position) => self.heap.take(position),
            State::Due(number) => self.bury(slot, number),
            State::Idle => return false,
        }
        true
    }

    /// Returns the deadline of a timer: [`Moment::ZERO`] if it is due and not taken yet, `None` if it is not
    /// armed.
    #[must_use]
    pub fn deadline(&self, id: TimerId) -> Option<Moment> {
        match self.heap.state(id)? {
            State::Armed(position) => Some(self.heap.deadline(position)),
            State::Due(_) => Some(Moment::ZERO),
            State::Idle => None,
        }
    }

    /// Returns the earliest deadline: [`Moment::ZERO`] while a due timer is not taken yet, `None` if no timer
    /// is armed.
    #[must_use]
    #[inline]
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.waiting != 0 {
            return Some(Moment::ZERO);
        }
        self.heap.first().map(|(deadline, _)| deadline)
    }

    /// Begins a run at `now`: appends the due timers to the remaining ones of an unfinished run. A deadline
    /// of [`Moment::NEVER`] is never due.
    pub fn begin(&mut self, now: Moment) {
        while let Some((deadline, slot)) = self.heap.first() {
            if deadline > now || deadline == Moment::NEVER {
                break;
            }
            let number = (self.first_due + self.due.len() as u32) % DUE_NUMBERS;
            self.heap.take_first_as_due(number);
            self.due.push_back(slot);
            self.waiting += 1;
        }
    }

    /// Takes the next due timer, and disarms it.
    #[inline]
    pub fn next_due(&mut self) -> Option<TimerId> {
        while let Some(slot) = self.due.pop_front() {
            self.first_due = (self.first_due + 1) % DUE_NUMBERS;
            if slot != TOMBSTONE {
                self.waiting -= 1;
                self.heap.set_idle(slot);
                return Some(self.heap.id(slot));
            }
        }
        None
    }

    /// Returns the number of timers, armed or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Returns whether there are no timers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all timers, armed, due or neither. Returns their values.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.heap.clear();
        self.due.clear();
        (self.waiting, self.live) = (0, 0);
        self.values.iter_mut().filter_map(Option::take).collect()
    }

    /// Removes a timer from the due list.
    #[cold]
    #[inline(never)]
    fn bury(&mut self, slot: u32, number: u32) {
        let index = number.wrapping_sub(self.first_due) % DUE_NUMBERS;
        self.due[index as usize] = TOMBSTONE;
        self.waiting -= 1;
        if self.waiting == 0 {
            self.due.clear();
        }
        self.heap.set_idle(slot);
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
