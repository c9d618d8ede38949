//! Atomics and locks, real or modelled, and the fault that the schedules plant: the only file that names the model checkers.

#[cfg(all(not(shuttle), target_has_atomic = "64"))]
pub(crate) use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(all(feature = "std", not(any(loom, shuttle))))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

/// A fault that can be planted on purpose, to see that it is found.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A jump of a virtual clock reads its state and writes it in two steps.
    JumpInTwoSteps,
    /// Subscribers of a virtual clock are notified of a change before it is made.
    NotifiedBeforeChange,
}

/// Whether a fault is planted: never, outside the models.
#[cfg(all(feature = "std", not(any(loom, shuttle))))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

#[cfg(any(loom, shuttle))]
pub(crate) fn planted(fault: Fault) -> bool {
    static PLANTED: std::sync::OnceLock<Option<std::string::String>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("AIO_PLANT").ok());
    planted
        .as_ref()
        .is_some_and(|name| *name == std::format!("{fault:?}"))
}
