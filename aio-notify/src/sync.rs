//! Atomics, a thread-local variable and the eventfd. A model checker replaces this module by its own: see
//! `proofs/modelled`.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::thread_local;

/// Returns the number of the caller's core, which may change at any moment. It costs a system call if the
/// vDSO does not have the number, as on aarch64.
pub(crate) use rustix::thread::sched_getcpu as core_here;

pub(crate) use crate::eventfd::Eventfd;

/// A number that no thread loads before it changes it. A model checker then has fewer orders to try.
pub(crate) type Count = AtomicU64;

/// Expands to the right code. A build for model checkers can choose the mistake beside it, to show that a model finds it.
///
/// - `faulty!(NAME, right, wrong)`: the mistake is the other expression.
/// - `faulty!(NAME, right)`: the mistake leaves it out.
/// - `faulty!(NAME, first; second)`: the mistake is the other order.
/// - `faulty!(NAME: more)`: the mistake does more.
macro_rules! faulty {
    ($fault:ident: $more:expr) => {};
    ($fault:ident, $first:expr; $second:expr) => {
        $first;
        $second
    };
    ($fault:ident, $right:expr $(, $wrong:expr)?) => {
        $right
    };
}
pub(crate) use faulty;

/// Raises a flag that the home thread lowers by a swap.
#[inline]
pub(crate) fn raise(flag: &AtomicBool, order: Ordering) {
    flag.store(true, order);
}

/// Stores a number that other threads change only by an exchange with the value that they have read.
#[inline]
pub(crate) fn overwrite(number: &AtomicU64, value: u64, order: Ordering) {
    number.store(value, order);
}

/// Reads a pointer for an exchange that fails unless it still is the newest one.
#[inline]
pub(crate) fn read_for_exchange<T>(pointer: &AtomicPtr<T>) -> *mut T {
    pointer.load(Ordering::Relaxed)
}
