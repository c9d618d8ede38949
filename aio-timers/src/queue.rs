//! [`TimerQueue`]: timers under ids, and a run that takes the due ones.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::Moment;
use crate::heap::{Heap, Key};

/// Names a timer in its queue; an id of a timer that was removed names nothing for as long as there are generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    slot: u32,
    generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
    /// It is in the due list, under this ticket; cancelling or arming it takes the ticket away.
    due: Option<u64>,
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
    heap: Heap,
    due: VecDeque<(u32, u64)>,
    /// How many of the due list have not been cancelled.
    waiting: usize,
    live: usize,
    /// Counts armings, so that equal deadlines fire in the order of arming.
    sequence: u64,
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
            sequence: 0,
        }
    }

    /// Adds a timer that is not armed.
    ///
    /// # Panics
    /// With more than four thousand million timers.
    pub fn insert(&mut self, value: T) -> TimerId {
        self.live += 1;
        if let Some(slot) = self.vacant.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.value = Some(value);
            return TimerId {
                slot,
                generation: entry.generation,
            };
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        assert!(slot < u32::MAX, "more than four thousand million timers");
        self.slots.push(Slot {
            generation: 0,
            value: Some(value),
            due: None,
        });
        TimerId { slot, generation: 0 }
    }

    /// A timer's value.
    #[must_use]
    pub fn get(&self, id: TimerId) -> Option<&T> {
        self.slot(id)?.value.as_ref()
    }

    /// Takes a timer out, armed or not.
    pub fn remove(&mut self, id: TimerId) -> Option<T> {
        self.slot(id)?;
        self.cancel(id);
        self.live -= 1;
        let entry = &mut self.slots[id.slot as usize];
        let value = entry.value.take();
        // A slot that has used up its generations is not used again.
        if let Some(next) = entry.generation.checked_add(1) {
            entry.generation = next;
            self.vacant.push(id.slot);
        }
        value
    }

    /// Arms a timer, or moves it; true if its deadline is now the earliest. False also for an id that names nothing.
    pub fn arm(&mut self, id: TimerId, deadline: Moment) -> bool {
        if self.slot(id).is_none() {
            return false;
        }
        self.undue(id.slot);
        self.sequence += 1;
        self.heap.put(
            id.slot,
            Key {
                deadline,
                sequence: self.sequence,
            },
        );
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
    pub fn cancel(&mut self, id: TimerId) -> bool {
        if self.slot(id).is_none() {
            return false;
        }
        let was_due = self.undue(id.slot);
        self.heap.take(id.slot) || was_due
    }

    /// When a timer fires: [`Moment::ZERO`] if it is due and not taken yet, `None` if it is not armed.
    #[must_use]
    pub fn deadline(&self, id: TimerId) -> Option<Moment> {
        if self.slot(id)?.due.is_some() {
            return Some(Moment::ZERO);
        }
        self.heap.key(id.slot).map(|key| key.deadline)
    }

    /// The earliest deadline: [`Moment::ZERO`] while a due timer waits to be taken, `None` if no timer is armed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.waiting != 0 {
            return Some(Moment::ZERO);
        }
        self.heap.first().map(|(key, _)| key.deadline)
    }

    /// Begins a run at `now`: sets apart what is due, behind what an unfinished run has left.
    pub fn begin(&mut self, now: Moment) {
        while let Some((key, slot)) = self.heap.first() {
            if key.deadline > now || key.deadline == Moment::NEVER {
                break;
            }
            self.heap.take(slot);
            self.slots[slot as usize].due = Some(key.sequence);
            self.due.push_back((slot, key.sequence));
            self.waiting += 1;
        }
    }

    /// Takes the next due timer, which is then not armed.
    pub fn next_due(&mut self) -> Option<TimerId> {
        while let Some((slot, ticket)) = self.due.pop_front() {
            let entry = &mut self.slots[slot as usize];
            if entry.due == Some(ticket) {
                entry.due = None;
                self.waiting -= 1;
                return Some(TimerId {
                    slot,
                    generation: entry.generation,
                });
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

    fn slot(&self, id: TimerId) -> Option<&Slot<T>> {
        self.slots
            .get(id.slot as usize)
            .filter(|slot| slot.generation == id.generation && slot.value.is_some())
    }

    fn undue(&mut self, slot: u32) -> bool {
        let was_due = self.slots[slot as usize].due.take().is_some();
        self.waiting -= usize::from(was_due);
        was_due
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
