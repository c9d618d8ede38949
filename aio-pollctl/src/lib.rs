//! How long to poll before sleeping: policies as pure state machines.
//!
//! A [`PollPolicy`] says how long the next wait may be spent polling, and is told afterwards how long there was nothing to
//! do. [`Policy::by_name`] has them all:
//!
//! | name | polls |
//! |---|---|
//! | `never`, `always`, `fixed` | not at all, for the whole maximum, for a given time |
//! | `ski-rental` | for the break-even time: at most twice as bad as knowing the future |
//! | `qemu-2020` | [`Qemu2020`]: what QEMU's event loop did in 2020, exactly |
//! | `qemu-10`, `qemu-weighted` | the same per handler; weighted means per handler |
//! | `kvm` | what KVM does before a virtual processor sleeps |
//! | `ewma` | while a moving mean of the waits is below the break-even time |
//! | `learned`, `learned-2` | [`Learned`]: for the time that would have been best lately, and never much worse than `ski-rental` |
//!
//! # What polling costs
//! A sleep costs its wake-up latency and some processor time; polling costs the time until the event. The *break-even time*
//! `b` is the polling time that costs as much as a sleep ([`PollParams::break_even_ns`]). Polling for up to `s` before a wait
//! of `w` costs `w` if `w <= s`, else `s + b`. With `w` known in advance the cost is the smaller of `w` and `b`: the clairvoyant
//! optimum, against which the crate `aio-replay` measures policies.
//!
//! # What it does not do
//! A policy reads no clock, allocates nothing, calls nobody, draws no random numbers, and does not divide after set-up: the
//! same waits give the same answers, in some nanoseconds.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod always;
mod ceiling;
mod choice;
mod effective;
mod ewma;
mod explore;
mod fixed;
mod growth;
mod kvm;
mod ladder;
mod latency;
mod learned;
mod never;
mod params;
mod policy;
mod qemu10;
mod qemu2020;
mod rcl;
mod ski_rental;
mod weighted;

pub use always::Always;
pub use choice::Policy;
pub use effective::Effective;
pub use ewma::Ewma;
pub use fixed::Fixed;
pub use kvm::Kvm;
pub use learned::{Learned, Learned2, RegretLadder};
pub use never::Never;
pub use params::{PollParams, WakeCost};
pub use policy::{HandlerMemory, Iteration, PollPolicy};
pub use qemu10::Qemu10;
pub use qemu2020::Qemu2020;
pub use rcl::Counts;
pub use ski_rental::SkiRental;
pub use weighted::QemuWeighted;
