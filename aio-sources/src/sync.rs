//! Atomics, locks and threads. A model checker replaces this module by its own: see `proofs/modelled`.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
pub(crate) use std::sync::{Condvar, Mutex};
pub(crate) use std::thread;

/// Returns whether a thread has ended.
pub(crate) fn has_ended<T>(thread: &thread::JoinHandle<T>) -> bool {
    thread.is_finished()
}

/// Expands to the right code. A build for model checkers can choose the mistake beside it, to show that a scenario finds it.
///
/// - `faulty!(NAME, first; second)`: the mistake is the other order.
macro_rules! faulty {
    ($fault:ident, $first:expr; $second:expr) => {
        $first;
        $second
    };
}
pub(crate) use faulty;
