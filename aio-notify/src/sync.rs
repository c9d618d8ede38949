//! Atomics, real or modelled, and the faults that the models plant: with `loads` and `monitor`, the only file besides the models
//! that names the model checkers.
//!
//! `loom` tries every order, weak memory included, of a few steps; `shuttle` tries random orders of many, one step after the
//! other. In ordinary builds all of this is what the standard library has, and `planted` is false at compile time.

use std::cell::Cell;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

#[cfg(any(loom, shuttle))]
pub(crate) use checker::{
    lazy_static,
    sync::atomic::{Ordering, fence},
};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64};

#[cfg(any(loom, shuttle))]
pub(crate) use checker::sync::atomic::AtomicU64 as Count;
/// A number that no thread loads before it changes it: loom overlooks nothing of that, and a load is one step.
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::AtomicU64 as Count;

#[cfg(loom)]
pub(crate) use crate::loads::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64};

/// The kernel's eventfd.
#[cfg(not(any(loom, shuttle)))]
pub(crate) use crate::eventfd::Eventfd;
#[cfg(any(loom, shuttle))]
pub(crate) use crate::kernel::Eventfd;

#[cfg(not(any(loom, shuttle)))]
std::thread_local! {
    /// This thread's number, or 0 until it is first read.
    pub(crate) static THREAD: Cell<u64> = const { Cell::new(0) };
}

// The threads of a model are all on one thread of the system.
#[cfg(any(loom, shuttle))]
checker::thread_local! {
    pub(crate) static THREAD: Cell<u64> = Cell::new(0);
}

/// Raises a flag that the home thread lowers by a swap.
///
/// For the checker this is a read-modify-write. It does not see that a swap which has read the value before a store leaves no
/// room for that store but after it, and would let the lowered flag be read after the fences of both sides: an alarm that no
/// machine can give.
#[inline]
pub(crate) fn raise(flag: &AtomicBool) {
    let order = weakened(Fault::NotifyRelaxed, Ordering::Release);
    #[cfg(not(loom))]
    flag.store(true, order);
    #[cfg(loom)]
    flag.swap(true, order);
}

/// Stores a number that other threads change only by an exchange with what they have read.
///
/// For the checker this is a read-modify-write, as in `raise`: it does not see that such an exchange comes right after what was read,
/// and so before this store, and would let its result be read after it.
#[inline]
pub(crate) fn overwrite(number: &AtomicU64, value: u64, order: Ordering) {
    #[cfg(not(loom))]
    number.store(value, order);
    #[cfg(loom)]
    number.swap(value, order);
}

/// Reads a pointer for an exchange that fails unless it still is the newest one.
///
/// For the checker this is an exchange that always fails, and reads the newest one. It need not try what an older one leads to:
/// the exchange that follows fails, and tells the newest.
#[inline]
pub(crate) fn read_for_exchange<T>(pointer: &AtomicPtr<T>) -> *mut T {
    #[cfg(not(loom))]
    return pointer.load(Ordering::Relaxed);
    #[cfg(loom)]
    {
        let nobody = std::ptr::without_provenance_mut(usize::MAX);
        pointer
            .compare_exchange(nobody, nobody, Ordering::Relaxed, Ordering::Relaxed)
            .unwrap_err()
    }
}

/// An ordering, or none if the fault of leaving it out is planted.
#[inline]
pub(crate) fn weakened(fault: Fault, order: Ordering) -> Ordering {
    if planted(fault) { Ordering::Relaxed } else { order }
}

/// A fault that can be planted on purpose, to see that the models find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(test, loom)),
    allow(dead_code, reason = "some faults are planted by the models' own loop")
)]
pub(crate) enum Fault {
    /// `notify` has no fence between setting the flag and reading who waits.
    NotifyWithoutFence,
    /// `prepare_to_wait` has no fence between announcing itself and reading the flag.
    PrepareWithoutFence,
    /// `prepare_to_wait` does not read the flag again after announcing itself.
    PrepareWithoutRecheck,
    /// `notify` reads who waits before it sets the flag.
    NotifySwapped,
    /// `notify` does nothing when the flag is already set.
    SkipWhenNotified,
    /// `notify` writes nothing when another thread has announced a write.
    SkipWhenAnnounced,
    /// A write counts as finished before it begins.
    FinishedBeforeWrite,
    /// A write counts as finished for what is drained after it, instead of before it.
    DrainedReadLate,
    /// A write counts as finished also if there was a drain meanwhile.
    FinishedAnyDrain,
    /// That a write has finished is stored without releasing the write.
    FinishedRelaxed,
    /// `notify` reads what is drained without acquiring the drain.
    DrainedUnacquired,
    /// What is drained is stored without releasing the drain.
    DrainedRelaxed,
    /// What is drained is stored before the drain.
    DrainedStoredEarly,
    /// A drain that finds nothing takes back that a write has finished.
    EmptyDrainStored,
    /// `accept` has no fence after the drain though a wait stays announced.
    AcceptWithoutFence,
    /// `accept` reads the flag and clears it in two steps.
    AcceptInTwoSteps,
    /// The loop looks for work and accepts afterwards. (Planted in the models' loop.)
    AcceptAfterWork,
    /// A node is published without release ordering.
    PublishRelaxed,
    /// Nodes are taken without acquiring what was published.
    DetachRelaxed,
    /// `begin` clears the queued bit before it reads what was scheduled.
    BeginInTwoSteps,
    /// `begin` does not clear the queued bit.
    BeginKeepsQueued,
    /// Posting pushes a node that is in the queue already.
    PushTwice,
    /// A node is marked as wanted without ordering.
    WantRelaxed,
    /// A node begins without ordering.
    BeginRelaxed,
    /// A post at home goes before what other threads have posted.
    HomeOvertakes,
    /// Every thread acts as the home thread.
    HomeIsEverywhere,
    /// A handle is given up without ordering.
    ReleaseRelaxed,
    /// A handle is retired without ordering.
    RetireRelaxed,
    /// Whether a handle is the last one is found out before it is given up.
    RetireInTwoSteps,
    /// A ring has no fence between setting its bit and reading the epoch.
    RingWithoutFence,
    /// A loop that arms its board has no fence between that and checking once more.
    ArmWithoutFence,
    /// A ring ends the epoch that it has read, even if that is over and another one has begun.
    EndAnyEpoch,
    /// A board that is armed twice keeps its epoch.
    EpochGoesOn,
    /// A ring is taken without acquiring what was published.
    TakeRelaxed,
    /// `notify` counts a ring after it has rung.
    CountedAfterRing,
    /// `notify` sets the flag without releasing what was published.
    NotifyRelaxed,
    /// `accept` clears the flag without acquiring what was published.
    AcceptRelaxed,
    /// A foreign loop's flag is set without a fence.
    ForeignWithoutFence,
    /// A ring sets its bit without releasing what was published.
    RingRelaxed,
    /// `kick` has no fence between the change and reading who waits.
    KickWithoutFence,
    /// A waiter has no fence between being counted and reading its condition.
    CountedWithoutFence,
    /// A message is notified before it is sent.
    NotifiedBeforeSent,
    /// An interrupt is counted after its notification.
    InterruptCountedLate,
    /// Closing leaves the inbox open.
    LeftOpen,
}

/// Whether a fault is planted: never, outside the models.
#[cfg(not(any(loom, shuttle)))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

#[cfg(any(loom, shuttle))]
pub(crate) use crate::planting::is_planted as planted;

/// Whether a model is being torn down after a failure: its atomics cannot be used any more, and what they hold is left.
pub(crate) fn is_torn_down() -> bool {
    cfg!(loom) && std::thread::panicking()
}
