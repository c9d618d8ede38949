//! Threads and atomics, real or modelled, and the fault that the schedules plant: the only file that names the model checkers.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use real::*;

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

#[cfg(any(loom, shuttle))]
pub(crate) use modelled::*;

#[cfg(not(any(loom, shuttle)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use std::sync::{Condvar, Mutex};
    pub(crate) use std::thread;

    use super::Fault;

    /// Whether a fault is planted: never, outside the models.
    pub(crate) const fn planted(_: Fault) -> bool {
        false
    }

    /// Whether a thread has ended.
    pub(crate) fn has_ended<T>(thread: &thread::JoinHandle<T>) -> bool {
        thread.is_finished()
    }

    /// Whether a model is being torn down after a failure, so that its objects cannot be used: never, outside the models.
    pub(crate) const fn is_torn_down() -> bool {
        false
    }
}

#[cfg(any(loom, shuttle))]
mod modelled {
    pub(crate) use super::checker::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use super::checker::sync::{Condvar, Mutex};
    pub(crate) use super::checker::thread;

    use super::Fault;

    pub(crate) fn planted(fault: Fault) -> bool {
        aio_notify::planting::is_planted(fault)
    }

    /// The checkers cannot tell.
    pub(crate) fn has_ended<T>(_: &thread::JoinHandle<T>) -> bool {
        false
    }

    pub(crate) fn is_torn_down() -> bool {
        cfg!(loom) && std::thread::panicking()
    }
}

/// A fault that can be planted on purpose, to see that the schedules find it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A thread is woken before it is asked to stop.
    WokenBeforeStopped,
    /// The last sender rings before the channel is marked as closed.
    RungBeforeClosed,
}
