//! Time for an event loop: clocks that may be simulated, and a queue of timers.
//!
//! [`TimerQueue`] is an indexed 4-ary heap: arming, moving, anticipating and cancelling are O(log n), the earliest deadline
//! is O(1), equal deadlines fire in the order in which they were armed, and nothing allocates while there is room.
//! [`Clock`] is what it is read against: the system's clocks (feature `std`), a [`ManualClock`] that a test moves, and a
//! [`VirtualClock`] that can be stopped and warped.
//!
//! # What it does not do
//! It waits for nothing and calls nothing: it says which timers are due, its user fires them. It knows no thread and no loop.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod clock;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod heap;
mod moment;
mod queue;
mod sync;
#[cfg(feature = "std")]
mod system;
#[cfg(feature = "std")]
mod virtual_clock;

pub use clock::{Clock, ManualClock};
pub use moment::Moment;
pub use queue::{TimerId, TimerQueue};
#[cfg(feature = "std")]
pub use system::{Monotonic, Wall};
#[cfg(feature = "std")]
pub use virtual_clock::{Subscription, VirtualClock};
