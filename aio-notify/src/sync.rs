//! Atomics, real or modelled, and the faults that the models plant: the only file that names the model checker.

use std::cell::Cell;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
std::thread_local! {
    /// This thread's number, or 0 as long as nobody has asked for it.
    pub(crate) static THREAD: Cell<u64> = const { Cell::new(0) };
}

// The checker's threads are all on one thread of the system.
#[cfg(loom)]
loom::thread_local! {
    pub(crate) static THREAD: Cell<u64> = Cell::new(0);
}

/// Raises a flag that the home thread lowers by a swap.
///
/// For the checker this is a read-modify-write. It does not see that a swap which has read the value before a store leaves no
/// room for that store but after it, and would let the lowered flag be read after the fences of both sides: an alarm that no
/// machine can give.
#[inline]
pub(crate) fn raise(flag: &AtomicBool) {
    #[cfg(not(loom))]
    flag.store(true, Ordering::Release);
    #[cfg(loom)]
    flag.swap(true, Ordering::Release);
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
    /// `accept` reads the flag and clears it in two steps.
    AcceptInTwoSteps,
    /// The loop looks for work and accepts afterwards. (The models' loop asks for it.)
    AcceptAfterWork,
    /// A node is published without release ordering.
    PublishRelaxed,
    /// `begin` lets go of the queued bit before it looks what was scheduled.
    BeginInTwoSteps,
    /// `begin` does not let go of the queued bit.
    BeginKeepsQueued,
    /// Posting pushes a node that is in the queue already.
    PushTwice,
    /// A node is marked as wanted without ordering.
    WantRelaxed,
    /// A node begins without ordering.
    BeginRelaxed,
    /// A post at home goes before what other threads have posted.
    HomeOvertakes,
    /// Every thread takes itself for the home thread.
    HomeIsEverywhere,
    /// A handle is given up without ordering.
    ReleaseRelaxed,
    /// Whether a handle is the last one is found out before it is given up.
    RetireInTwoSteps,
    /// A ring has no fence between setting its bit and reading the turn.
    RingWithoutFence,
    /// A loop that rests has no fence between saying so and looking once more.
    RestWithoutFence,
    /// A ring ends the rest that it has seen, even if that is over and another one has begun.
    EndAnyRest,
    /// A loop that rests, and rests again, keeps its turn.
    RestGoesOn,
    /// A ring is taken without acquiring what was published.
    TakeRelaxed,
}

/// Whether a fault is planted: never, outside the models.
#[cfg(not(loom))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

#[cfg(loom)]
pub(crate) use modelled::planted;

#[cfg(all(test, loom))]
pub(crate) use modelled::with_fault;

#[cfg(loom)]
mod modelled {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Fault;

    static PLANTED: AtomicU32 = AtomicU32::new(u32::MAX);

    pub(crate) fn planted(fault: Fault) -> bool {
        PLANTED.load(Ordering::Relaxed) == fault as u32
    }

    /// Runs a model with a fault planted. Models run one at a time.
    #[cfg(test)]
    pub(crate) fn with_fault<R>(fault: Option<Fault>, run: impl FnOnce() -> R) -> R {
        use std::sync::{Mutex, PoisonError};
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        PLANTED.store(fault.map_or(u32::MAX, |fault| fault as u32), Ordering::Relaxed);
        let result = run();
        PLANTED.store(u32::MAX, Ordering::Relaxed);
        result
    }
}

/// Whether a model is being torn down after a failure: its atomics cannot be used any more, and what they hold is left.
pub(crate) fn is_torn_down() -> bool {
    cfg!(loom) && std::thread::panicking()
}

/// The doorbell as a model: a counter and a condition variable, as the kernel has them.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct ModelledDoorbell {
    rung: loom::sync::Mutex<u64>,
    heard: loom::sync::Condvar,
}

#[cfg(loom)]
impl ModelledDoorbell {
    pub(crate) fn new() -> Self {
        Self {
            rung: loom::sync::Mutex::new(0),
            heard: loom::sync::Condvar::new(),
        }
    }

    pub(crate) fn ring(&self) {
        *self.rung.lock().expect("no model panics while it rings") += 1;
        self.heard.notify_one();
    }

    pub(crate) fn drain(&self) -> u64 {
        std::mem::take(&mut *self.rung.lock().expect("no model panics while it rings"))
    }

    /// Sleeps until it rings, as a backend would.
    #[cfg(test)]
    pub(crate) fn wait(&self) {
        let mut rung = self.rung.lock().expect("no model panics while it rings");
        while *rung == 0 {
            rung = self.heard.wait(rung).expect("no model panics while it waits");
        }
    }
}
