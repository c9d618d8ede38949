//! [`TimerQueue`]: timers under ids, and a run that takes the due ones.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::Moment;
use crate::heap::{Heap, Place};

/// Names a timer in its queue; an id of a timer that was removed names nothing for as long as there are generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    /// Under which ticket it is in the due list, if it is due. Another ticket there is left from before it was cancelled.
    ticket: u64,
}

/// Timers with a value each.
///
/// A run begins with [`begin`](Self::begin), which sets apart what is due, and goes on with [`next_due`](Self::next_due)
/// until there is nothing left. What is armed meanwhile, even for the past, is for the next run: a timer that arms itself
/// with no delay cannot keep a run going for ever. A run inside a run takes over what the outer one has left.
#[derive(Debug)]
pub struct TimerQueue<T> {
    slots: Vec<Slot<T>>,
    vacant: Vec<u32>,
    pub(crate) heap: Heap,
    due: VecDeque<(u32, u64)>,
    /// How many of the due list have not been cancelled.
    waiting: usize,
    live: usize,
    /// Of the last timer that became due.
    ticket: u64,
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> TimerQueue<T> {
    /// A queue without timers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            heap: Heap::default(),
            due: VecDeque::new(),
            waiting: 0,
            live: 0,
            ticket: 0,
        }
    }

    /// Adds a timer that is not armed.
    ///
    /// # Panics
    /// With more than four thousand million timers.
    pub fn insert(&mut self, value: T) -> TimerId {
        self.live += 1;
        if let Some(slot) = self.vacant.pop() {
            self.slots[slot as usize].value = Some(value);
            return self.heap.revive(slot);
        }
        self.slots.push(Slot {
            value: Some(value),
            ticket: 0,
        });
        self.heap.add()
    }

    /// A timer's value.
    #[must_use]
    pub fn get(&self, id: TimerId) -> Option<&T> {
        self.heap.place(id)?;
        self.slots[id.slot as usize].value.as_ref()
    }

    /// Takes a timer out, armed or not.
    pub fn remove(&mut self, id: TimerId) -> Option<T> {
        self.heap.place(id)?;
        self.cancel(id);
        self.live -= 1;
        if self.heap.retire(id.slot) {
            self.vacant.push(id.slot);
        }
        self.slots[id.slot as usize].value.take()
    }

    /// Arms a timer, or moves it; true if its deadline is now the earliest. False also for an id that names nothing.
    #[inline]
    pub fn arm(&mut self, id: TimerId, deadline: Moment) -> bool {
        match self.heap.place(id) {
            Some(Place::Armed(index)) => self.heap.shift(index, id.slot, deadline),
            Some(Place::Idle) => self.heap.push(id.slot, deadline),
            Some(Place::Due) => {
                self.undue(id.slot);
                self.heap.push(id.slot, deadline);
            }
            None => return false,
        }
        self.heap.first().is_some_and(|(_, slot)| slot == id.slot)
    }

    /// Arms a timer unless it is armed for the same or an earlier moment, or due; true if its deadline became the earliest.
    pub fn anticipate(&mut self, id: TimerId, deadline: Moment) -> bool {
        if self.deadline(id).is_some_and(|present| present <= deadline) {
            return false;
        }
        self.arm(id, deadline)
    }

    /// Disarms a timer; true if it was armed, or due and not taken yet.
    #[inline]
    pub fn cancel(&mut self, id: TimerId) -> bool {
        match self.heap.place(id) {
            Some(Place::Armed(index)) => self.heap.take(index),
            Some(Place::Due) => self.undue(id.slot),
            Some(Place::Idle) | None => return false,
        }
        true
    }

    /// When a timer fires: [`Moment::ZERO`] if it is due and not taken yet, `None` if it is not armed.
    #[must_use]
    pub fn deadline(&self, id: TimerId) -> Option<Moment> {
        match self.heap.place(id)? {
            Place::Armed(index) => Some(self.heap.deadline(index)),
            Place::Due => Some(Moment::ZERO),
            Place::Idle => None,
        }
    }

    /// The earliest deadline: [`Moment::ZERO`] while a due timer waits to be taken, `None` if no timer is armed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.waiting != 0 {
            return Some(Moment::ZERO);
        }
        self.heap.first().map(|(deadline, _)| deadline)
    }

    /// Begins a run at `now`: sets apart what is due, behind what an unfinished run has left.
    pub fn begin(&mut self, now: Moment) {
        while let Some((deadline, slot)) = self.heap.first() {
            if deadline > now || deadline == Moment::NEVER {
                break;
            }
            self.heap.take_first_as_due();
            self.ticket += 1;
            self.slots[slot as usize].ticket = self.ticket;
            self.due.push_back((slot, self.ticket));
            self.waiting += 1;
        }
    }

    /// Takes the next due timer, which is then not armed.
    pub fn next_due(&mut self) -> Option<TimerId> {
        while let Some((slot, ticket)) = self.due.pop_front() {
            let id = self.heap.id(slot);
            // A slot that was cancelled may be due again, under another ticket, or belong to another timer.
            if self.slots[slot as usize].ticket == ticket && self.heap.place(id) == Some(Place::Due) {
                self.undue(slot);
                return Some(id);
            }
        }
        None
    }

    /// How many timers there are, armed or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn undue(&mut self, slot: u32) {
        self.heap.undue(slot);
        self.waiting -= 1;
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
