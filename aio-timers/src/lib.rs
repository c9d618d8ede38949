//! Time for an event loop: clocks that can be simulated, and timers.
//!
//! - [`TimerSet`] runs callbacks at deadlines. A callback may use the set while it runs: re-arm itself, cancel or remove timers,
//!   run further ones.
//! - [`TimerSets`] are the sets of several clocks; a loop reads only the clocks in use. A [`TimerHandle`]
//!   owns one of their timers.
//! - [`TimerQueue`] is the data structure below it, for loops whose timers have other values than callbacks:
//!   an indexed 4-ary heap with O(log n) arming, moving and cancelling, an O(1) earliest deadline, and
//!   first-in-first-out order among equal deadlines.
//! - [`Clock`] is the source of time for both: the system's clocks (`Monotonic` and `Wall`, with the feature
//!   `std`), a [`ManualClock`] that a test sets, and a `VirtualClock` (feature `std`) that follows another
//!   clock and can be stopped, set and warped.
//! - [`wait_for`] waits for the whole of a timeout, even if a system call ends early, or lets simulated time
//!   pass.
//! - [`SelfTime`] measures callbacks that run inside each other, and [`SlowLimit`] finds those that take too
//!   long.
//!
//! A loop waits for the time that the set returns, and then fires the timers that are due:
//!
//! ```
//! use aio_timers::{Clock, ManualClock, TimerId, TimerSet};
//! use core::time::Duration;
//!
//! type Callback = Box<dyn Fn(TimerId)>;
//!
//! let timers: TimerSet<Callback, ManualClock> = TimerSet::new(ManualClock::new());
//! let timer = timers.insert(Box::new(|id| println!("{id:?} fired")));
//! timers.arm_after(timer, Duration::from_secs(3600));
//!
//! while let Some(left) = timers.time_left() {
//!     if !timers.clock().pass(left) {
//!         std::thread::sleep(left); // a real clock; this one is simulated and has moved already
//!     }
//!     timers.fire_due(|callback, id| callback(id));
//! }
//! ```
//!
//! # What it does not do
//! It never waits, wakes no thread and starts none: its user does. Its only system calls read the system's
//! clocks.
//!
//! # Targets
//! Without the feature `std` (on by default) it needs `alloc` only. `ManualClock` exists on targets with 64-bit atomics,
//! `Clock` for `Arc` on targets with pointer-sized ones.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

mod clock;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod handle;
mod heap;
#[cfg(target_has_atomic = "64")]
mod manual_clock;
mod moment;
mod queue;
mod self_time;
mod set;
mod sets;
#[cfg(all(feature = "std", not(aio_modelled)))]
mod sync;
#[cfg(feature = "std")]
mod system;
mod timer_id;
#[cfg(feature = "std")]
mod virtual_clock;
mod waiting;

#[cfg(aio_modelled)]
use aio_checker as sync;

pub use clock::Clock;
pub use handle::TimerHandle;
#[cfg(target_has_atomic = "64")]
pub use manual_clock::ManualClock;
pub use moment::Moment;
pub use queue::TimerQueue;
pub use self_time::{Exceeded, SelfTime, SlowLimit};
pub use set::TimerSet;
pub use sets::{ClockTimers, TimerSets};
#[cfg(feature = "std")]
pub use system::{Monotonic, Wall};
pub use timer_id::TimerId;
#[cfg(feature = "std")]
pub use virtual_clock::{Subscription, VirtualClock};
pub use waiting::{Standstill, wait_for};

/// Functions that several tests use.
#[cfg(test)]
mod tests {
    use std::println;

    /// Returns random numbers whose seed is printed: the seed of the environment or a new one.
    pub(crate) fn random() -> fastrand::Rng {
        let given = std::env::var("AIO_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| fastrand::u64(..));
        println!("AIO_SEED={seed}");
        fastrand::Rng::with_seed(seed)
    }
}
