//! [`Mutex`]: exclusive use of a value by tasks of any context.
//!
//! The value itself is moved: it is in the mutex while no task uses it, and in the guard otherwise. Dropping
//! a guard reserves the value for the task that has waited longest and wakes that task, so no task can
//! overtake. The lock inside is held only for these few steps, never while a task waits or is woken.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context as Polling, Poll, Waker};

use crate::sync::{self, faulty};

/// A value that tasks of any context use one at a time, in the order of their requests.
///
/// A guard may be held across an `.await`, also across a [`hop`](crate::hop()). A waiting task blocks no
/// thread. If a task panics while it holds the guard, the value passes to the next task as it is: there is no
/// poisoning.
///
/// ```
/// use std::sync::Arc;
/// use aio_context::Context;
/// use aio_executor::{ContextExt, Mutex, yield_now};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, count) = (Context::new()?, Arc::new(Mutex::new(0)));
/// let tasks = [(); 2].map(|()| {
///     let count = count.clone();
///     cx.spawn(async move {
///         let mut count = count.lock().await;
///         let before = *count;
///         yield_now().await; // the other task waits
///         *count = before + 1;
///     })
/// });
/// for task in tasks {
///     cx.block_on(task)?.unwrap();
/// }
/// assert_eq!(*count.try_lock().unwrap(), 2);
/// # Ok(()) }
/// ```
pub struct Mutex<T> {
    state: sync::Mutex<State<T>>,
}

struct State<T> {
    /// `None` while a guard has it.
    value: Option<Box<T>>,
    /// The waiter for which the value is reserved, if it is not free.
    reserved: Option<u64>,
    /// Sorted by number, for binary search.
    waiters: VecDeque<(u64, Waker)>,
    next_id: u64,
}

impl<T> Mutex<T> {
    /// Makes a mutex that is not locked.
    pub fn new(value: T) -> Self {
        Self {
            state: sync::Mutex::new(State {
                value: Some(Box::new(value)),
                reserved: None,
                waiters: VecDeque::new(),
                next_id: 0,
            }),
        }
    }

    /// Waits until the value is free, and takes it until the guard is dropped. Dropping the future gives up
    /// the place in the queue.
    pub fn lock(&self) -> Lock<'_, T> {
        Lock {
            mutex: self,
            waiter: None,
        }
    }

    /// Takes the value, if it is free and no task waits for it.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let value = self.with(State::take_free)?;
        Some(self.guard(value))
    }

    /// Returns the value.
    ///
    /// # Panics
    /// If a guard was leaked.
    pub fn into_inner(self) -> T {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(value) = state.value else {
            panic!("a guard of the mutex was leaked, and the value with it");
        };
        *value
    }

    fn guard(&self, value: Box<T>) -> Guard<'_, T> {
        Guard {
            mutex: self,
            value: Some(value),
        }
    }

    fn with<R>(&self, change: impl FnOnce(&mut State<T>) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state, then wakes the waiter for which the change has reserved the value.
    fn hand_over(&self, change: impl FnOnce(&mut State<T>) -> Option<Waker>) {
        let next = self.with(change);
        if let Some(next) = next {
            next.wake();
        }
    }
}

impl<T> State<T> {
    fn take_free(&mut self) -> Option<Box<T>> {
        faulty!(
            ReservedIsFree,
            if self.reserved.is_some() {
                return None;
            }
        );
        self.value.take()
    }

    /// Takes the value if it is reserved for this waiter.
    fn take_reserved(&mut self, waiter: u64) -> Option<Box<T>> {
        if self.reserved != Some(waiter) {
            return None;
        }
        self.reserved = None;
        self.value.take()
    }

    /// Reserves the value, which no guard has, for the first waiter.
    fn reserve(&mut self) -> Option<Waker> {
        let first = self.waiters.pop_front();
        self.reserved = first.as_ref().map(|(id, _)| *id);
        first.map(|(_, waker)| waker)
    }

    /// Queues a waiter with this waker, or replaces its waker. Returns the former waker.
    fn enqueue(&mut self, waiter: Option<u64>, waker: &Waker) -> (u64, Option<Waker>) {
        if let Some(id) = waiter
            && let Some(place) = self.place(id)
        {
            let known = &mut self.waiters[place].1;
            let former = (!known.will_wake(waker)).then(|| mem::replace(known, waker.clone()));
            return (id, former);
        }
        let id = self.next_id;
        self.next_id += 1;
        self.waiters.push_back((id, waker.clone()));
        (id, None)
    }

    fn place(&self, waiter: u64) -> Option<usize> {
        self.waiters.binary_search_by_key(&waiter, |(id, _)| *id).ok()
    }

    /// Removes a waiter. Returns its waker, or that of the next one, which gets its reservation.
    fn give_up(&mut self, waiter: u64) -> (Option<Waker>, Option<Waker>) {
        if self.reserved == Some(waiter) {
            return (None, faulty!(ReservationKept, self.reserve(), None));
        }
        let own = self.place(waiter).and_then(|place| self.waiters.remove(place));
        (own.map(|(_, waker)| waker), None)
    }
}

/// The future of [`Mutex::lock`].
///
/// # Examples
/// ```
/// use aio_context::Context;
/// use aio_executor::{ContextExt, Mutex};
///
/// # fn main() -> std::io::Result<()> {
/// let (cx, mutex) = (Context::new()?, Mutex::new(1));
/// cx.block_on(async {
///     let mut value = mutex.lock().await;
///     *value += 1;
/// })?;
/// assert_eq!(mutex.into_inner(), 2);
/// # Ok(()) }
/// ```
#[must_use = "a future does nothing before it is awaited"]
pub struct Lock<'a, T> {
    mutex: &'a Mutex<T>,
    /// `Some` while it waits.
    waiter: Option<u64>,
}

impl<'a, T> Future for Lock<'a, T> {
    type Output = Guard<'a, T>;

    fn poll(mut self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<Guard<'a, T>> {
        let waiter = self.waiter;
        let taken = self.mutex.with(|state| {
            let value = match waiter {
                Some(waiter) => state.take_reserved(waiter),
                None => state.take_free(),
            };
            value.ok_or_else(|| state.enqueue(waiter, polling.waker()))
        });
        match taken {
            Ok(value) => {
                self.waiter = None;
                Poll::Ready(self.mutex.guard(value))
            }
            Err((waiter, former)) => {
                self.waiter = Some(waiter);
                drop(former); // outside the lock
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Lock<'_, T> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            let (own, next) = self.mutex.with(|state| state.give_up(waiter));
            drop(own);
            if let Some(next) = next {
                next.wake();
            }
        }
    }
}

/// Access to the value of a [`Mutex`], which ends when this is dropped.
///
/// # Examples
/// ```
/// use aio_executor::Mutex;
///
/// let mutex = Mutex::new(vec![1, 2]);
/// let mut guard = mutex.try_lock().unwrap();
/// guard.push(3);
/// assert!(mutex.try_lock().is_none());
/// drop(guard);
/// assert_eq!(mutex.into_inner(), [1, 2, 3]);
/// ```
#[must_use = "dropped at once, the mutex is unlocked at once"]
pub struct Guard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `Some` until it is dropped.
    value: Option<Box<T>>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        let Some(value) = &self.value else {
            unreachable!("a guard has its value until it is dropped");
        };
        value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        let Some(value) = &mut self.value else {
            unreachable!("a guard has its value until it is dropped");
        };
        value
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        let value = self.value.take();
        self.mutex.hand_over(|state| {
            state.value = value;
            state.reserve()
        });
    }
}

impl<T: fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> fmt::Debug for Lock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_locked = self.with(|state| state.value.is_none() || state.reserved.is_some());
        f.debug_struct("Mutex")
            .field("is_locked", &is_locked)
            .finish_non_exhaustive()
    }
}
