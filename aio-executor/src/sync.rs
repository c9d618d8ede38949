//! Atomics and locks. A model checker replaces this module by its own: see `proofs/modelled`.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
pub(crate) use std::sync::{Condvar, Mutex};
pub(crate) use std::thread_local;

/// Expands to the right code. A build for model checkers can choose the mistake beside it, to show that a scenario finds it.
///
/// - `faulty!(NAME, right)`: the mistake leaves it out.
/// - `faulty!(NAME, right, wrong)`: the mistake is the other expression.
/// - `faulty!(NAME, first; second)`: the mistake is the other order.
macro_rules! faulty {
    ($fault:ident, $first:expr; $second:expr) => {
        $first;
        $second
    };
    ($fault:ident, $right:expr $(, $wrong:expr)?) => {
        $right
    };
}
pub(crate) use faulty;
