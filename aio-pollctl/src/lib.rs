//! How long to poll before sleeping: policies as pure state machines.
//!
//! A [`PollPolicy`] says how long the next wait may be spent polling, and is told afterwards how long there was nothing to
//! do. [`Learned`] learns what is cheapest from what every polling time would have cost; [`Qemu2020`] is the controller that
//! QEMU's event loop had in 2020, exactly; [`Fixed`] is the kind to compare others with.
//!
//! # What it does not do
//! It reads no clock, allocates nothing, calls nobody, and draws no random numbers: the same waits give the same answers.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(feature = "std", test))]
extern crate std;

mod fixed;
mod learned;
mod params;
mod policy;
mod qemu2020;
mod wake;

pub use fixed::Fixed;
pub use learned::Learned;
pub use params::PollParams;
pub use policy::{Iteration, PollPolicy};
pub use qemu2020::Qemu2020;
pub use wake::WakeCost;
