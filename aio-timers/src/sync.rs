//! Locks. A model checker replaces this module by its own: see `proofs/modelled`.

pub(crate) use std::sync::{Mutex, MutexGuard};

/// Expands to the right code. A build for model checkers can choose the mistake beside it, to show that a
/// scenario finds it.
///
/// - `faulty!(NAME, first; second)`: the mistake is the other order.
/// - `faulty!(NAME: more)`: the mistake does more.
macro_rules! faulty {
    ($fault:ident: $more:expr) => {};
    ($fault:ident, $first:expr; $second:expr) => {
        $first;
        $second
    };
}
pub(crate) use faulty;
