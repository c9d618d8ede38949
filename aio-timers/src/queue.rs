//! [`TimerQueue`]: timers under ids, and a run that takes the due ones.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::Moment;
use crate::heap::{Heap, Place, TICKETS};

/// Names a timer in its queue; an id of a timer that was removed names nothing for as long as there are generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(crate) slot: u32,
    pub(crate) generation: NonZeroU32,
}

/// In the due list: was cancelled.
const STRUCK: u32 = u32::MAX;

/// Timers with a value each.
///
/// A run begins with [`begin`](Self::begin), which sets apart what is due, and goes on with [`next_due`](Self::next_due)
/// until there is nothing left. What is armed meanwhile, even for the past, is for the next run: a timer that arms itself
/// with no delay cannot keep a run going for ever. A run inside a run takes over what the outer one has left.
#[derive(Debug)]
pub struct TimerQueue<T> {
    /// By slot.
    values: Vec<Option<T>>,
    heap: Heap,
    /// Slots, in the order in which they are to fire.
    due: VecDeque<u32>,
    /// The ticket of the first of them. Tickets are given out in turn: with its own a timer is found in the due list.
    ticket: u32,
    /// How many of the due list have not been cancelled.
    waiting: usize,
    live: usize,
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> TimerQueue<T> {
    /// A queue without timers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: Vec::new(),
            heap: Heap::new(),
            due: VecDeque::new(),
            ticket: 0,
            waiting: 0,
            live: 0,
        }
    }

    /// Adds a timer that is not armed.
    ///
    /// # Panics
    /// With more than two thousand million timers.
    pub fn insert(&mut self, value: T) -> TimerId {
        let id = self.heap.add();
        self.live += 1;
        match self.values.get_mut(id.slot as usize) {
            Some(vacant) => *vacant = Some(value),
            None => self.values.push(Some(value)),
        }
        id
    }

    /// A timer's value, if it has not been taken out.
    #[must_use]
    pub fn get(&self, id: TimerId) -> Option<&T> {
        self.heap.place(id)?;
        self.values[id.slot as usize].as_ref()
    }

    /// Where a timer's value is, for it to be changed, or taken out for a while and put back.
    #[must_use]
    #[inline]
    pub fn value_mut(&mut self, id: TimerId) -> Option<&mut Option<T>> {
        self.heap.place(id)?;
        Some(&mut self.values[id.slot as usize])
    }

    /// Removes a timer, armed or not, and gives its value, if that has not been taken out.
    pub fn remove(&mut self, id: TimerId) -> Option<T> {
        let place = self.heap.place(id)?;
        self.disarm(id.slot, place);
        self.live -= 1;
        self.heap.retire(id.slot);
        self.values[id.slot as usize].take()
    }

    /// Arms a timer, or moves it; true if its deadline is now the earliest. False also for an id that names nothing.
    #[inline]
    pub fn arm(&mut self, id: TimerId, deadline: Moment) -> bool {
        match self.heap.place(id) {
            Some(Place::Armed(position)) => self.heap.shift(position, id.slot, deadline),
            Some(Place::Idle) => self.heap.push(id.slot, deadline),
            Some(Place::Due(ticket)) => self.arm_due(id.slot, ticket, deadline),
            None => false,
        }
    }

    #[cold]
    #[inline(never)]
    fn arm_due(&mut self, slot: u32, ticket: u32, deadline: Moment) -> bool {
        self.strike(slot, ticket);
        self.heap.push(slot, deadline)
    }

    /// Arms a timer unless it is armed for the same or an earlier moment, or due; true if its deadline became the earliest.
    #[inline]
    pub fn anticipate(&mut self, id: TimerId, deadline: Moment) -> bool {
        match self.heap.place(id) {
            Some(Place::Armed(position)) => {
                deadline < self.heap.deadline(position) && self.heap.shift(position, id.slot, deadline)
            }
            Some(Place::Idle) => self.heap.push(id.slot, deadline),
            Some(Place::Due(_)) | None => false,
        }
    }

    /// Disarms a timer; true if it was armed, or due and not taken yet.
    #[inline]
    pub fn cancel(&mut self, id: TimerId) -> bool {
        self.heap
            .place(id)
            .is_some_and(|place| self.disarm(id.slot, place))
    }

    #[inline]
    fn disarm(&mut self, slot: u32, place: Place) -> bool {
        match place {
            Place::Armed(position) => self.heap.take(position),
            Place::Due(ticket) => self.strike(slot, ticket),
            Place::Idle => return false,
        }
        true
    }

    /// When a timer fires: [`Moment::ZERO`] if it is due and not taken yet, `None` if it is not armed.
    #[must_use]
    pub fn deadline(&self, id: TimerId) -> Option<Moment> {
        match self.heap.place(id)? {
            Place::Armed(position) => Some(self.heap.deadline(position)),
            Place::Due(_) => Some(Moment::ZERO),
            Place::Idle => None,
        }
    }

    /// The earliest deadline: [`Moment::ZERO`] while a due timer waits to be taken, `None` if no timer is armed.
    #[must_use]
    #[inline]
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
            let ticket = (self.ticket + self.due.len() as u32) % TICKETS;
            self.heap.take_first_as_due(ticket);
            self.due.push_back(slot);
            self.waiting += 1;
        }
    }

    /// Takes the next due timer, which is then not armed.
    #[inline]
    pub fn next_due(&mut self) -> Option<TimerId> {
        while let Some(slot) = self.due.pop_front() {
            self.ticket = (self.ticket + 1) % TICKETS;
            if slot != STRUCK {
                self.waiting -= 1;
                self.heap.undue(slot);
                return Some(self.heap.id(slot));
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

    /// Strikes a timer off the due list.
    #[cold]
    #[inline(never)]
    fn strike(&mut self, slot: u32, ticket: u32) {
        let index = ticket.wrapping_sub(self.ticket) % TICKETS;
        self.due[index as usize] = STRUCK;
        self.waiting -= 1;
        if self.waiting == 0 {
            self.due.clear();
        }
        self.heap.undue(slot);
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
