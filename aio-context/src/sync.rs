//! A thread-local variable. A model checker puts its own in the place of this module: see `proofs/modelled`.
//!
//! Atomics are not from here: no thread waits for one of this crate, and nothing follows from one but figures ([`Stats`](crate::Stats),
//! [`PollTime`](crate::PollTime)), and that `run` stops or a home thread has panicked. A checker would try all their orders for nothing.

pub(crate) use std::thread_local;

/// Expands to the right code. A build for model checkers can choose the mistake beside it, to show that a scenario finds it.
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
