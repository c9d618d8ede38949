//! [`Waiters`]: the tasks that wait for one direction of a descriptor.

use std::cell::{Cell, RefCell};
use std::mem;
use std::task::Waker;

/// Wakers, and the number of times that they were woken, by which a waiter sees that it was woken.
#[derive(Default)]
pub(crate) struct Waiters {
    events: Cell<u64>,
    next_id: Cell<u64>,
    /// Sorted by number, for binary search.
    waiting: RefCell<Vec<(u64, Waker)>>,
}

/// The waiter of functions such as `poll_read`, one for each direction.
pub(crate) const POLLER: u64 = 0;

impl Waiters {
    /// Returns a number for a waiter.
    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get()
    }

    /// Returns the number of times that the waiters were woken.
    pub(crate) fn events(&self) -> u64 {
        self.events.get()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Adds a waiter, or replaces its waker.
    pub(crate) fn add(&self, id: u64, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        let known = match place(&waiting, id) {
            Ok(place) => &mut waiting[place].1,
            Err(place) => return waiting.insert(place, (id, waker.clone())),
        };
        if !known.will_wake(waker) {
            let former = mem::replace(known, waker.clone());
            drop(waiting);
            drop(former);
        }
    }

    pub(crate) fn remove(&self, id: u64) {
        let mut waiting = self.waiting.borrow_mut();
        let removed = place(&waiting, id).map(|place| waiting.remove(place));
        drop(waiting);
        drop(removed);
    }

    /// Wakes and removes all.
    pub(crate) fn wake(&self) {
        self.events.set(self.events.get() + 1);
        // A waker may do anything, so nothing is borrowed. The list is put back, which saves an allocation.
        let mut woken = self.waiting.take();
        woken.drain(..).for_each(|(_, waker)| waker.wake());
        let mut waiting = self.waiting.borrow_mut();
        if waiting.capacity() == 0 {
            *waiting = woken;
        }
    }
}

/// Returns the index of a waiter, or the index at which to insert it.
fn place(waiting: &[(u64, Waker)], id: u64) -> Result<usize, usize> {
    waiting.binary_search_by_key(&id, |(known, _)| *known)
}
