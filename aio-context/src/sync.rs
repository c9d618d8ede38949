//! A thread-local variable. A model checker replaces this module by its own: see `proofs/modelled`.
//!
//! Atomics are not taken from here: no thread waits for an atomic of this crate. They hold
//! figures ([`Stats`](crate::Stats), [`PollTime`](crate::PollTime)), and the flags that `run` stops and that a
//! home thread has panicked. A checker would try all their orders in vain.

pub(crate) use std::thread_local;

/// Expands to the right code. A build for model checkers can replace it by a mistake, to show that a scenario
/// finds the mistake.
///
/// - `faulty!(NAME, right)`: the mistake leaves it out.
/// - `faulty!(NAME, first; second)`: the mistake is the other order.
/// - `faulty!(NAME: more)`: the mistake does more.
macro_rules! faulty {
    ($fault:ident: $more:expr) => {};
    ($fault:ident, $first:expr; $second:expr) => {
        $first;
        $second
    };
    ($fault:ident, $right:expr) => {
        $right
    };
}
pub(crate) use faulty;
