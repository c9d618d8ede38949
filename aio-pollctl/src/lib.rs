//! How long to poll before sleeping, and how to pace what a polling loop does besides: policies as pure state machines.
//!
//! A [`PollPolicy`] says how long the next wait may be spent polling, and observes afterwards how long there was nothing to
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
//! | `learned`, `learned-2` | [`Learned`], [`Learned2`]: for the time that would have been best lately, and never much worse than `ski-rental` |
//!
//! A policy that keeps a time for each handler stores it in the [`HandlerMemory`] that the loop holds beside the handler. The
//! example `per_handler` is such a policy.
//!
//! Four smaller state machines pace a loop that polls. The example `pacing` is a loop with all of them.
//!
//! | type | decides |
//! |---|---|
//! | [`CheckPacer`] | when the descriptors are checked although the loop does not wait |
//! | [`ClockStride`] | how many polling rounds pass between two readings of the clock |
//! | [`PreSleepSpin`] | whether checking the descriptors for a moment before a sleep is worth it |
//! | [`IdleCosts`] | which idle sources are no longer polled |
//!
//! # What polling costs
//! A sleep costs its wake-up latency and some processor time; polling costs the time until the event. The *break-even time*
//! `b` is the polling time that costs as much as a sleep ([`PollParams::break_even_ns`]). Polling for up to `s` before a wait
//! of `w` costs `w` if `w <= s`, else `s + b`. With `w` known in advance the cost is the smaller of `w` and `b`: the clairvoyant
//! optimum, against which the crate `aio-replay` measures policies.
//!
//! # What it does not do
//! Nothing here reads a clock, allocates, or draws random numbers: the same waits give the same answers. A policy does not divide
//! after set-up, and takes some nanoseconds for a wait. Handlers, descriptors and contexts are unknown here.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod always;
mod ceiling;
mod check_pacer;
mod choice;
mod clock_stride;
mod effective;
mod ewma;
mod explore;
mod fixed;
mod growth;
mod idle_costs;
mod kvm;
mod ladder;
mod latency;
mod learned;
mod never;
mod params;
mod policy;
mod pre_sleep_spin;
mod qemu10;
mod qemu2020;
mod rcl;
mod ski_rental;
mod weighted;

pub use always::Always;
pub use check_pacer::CheckPacer;
pub use choice::Policy;
pub use clock_stride::ClockStride;
pub use effective::Effective;
pub use ewma::Ewma;
pub use fixed::Fixed;
pub use idle_costs::IdleCosts;
pub use kvm::Kvm;
pub use learned::{Learned, Learned2, RegretLadder};
pub use never::Never;
pub use params::{PollParams, WakeCost};
pub use policy::{HandlerMemory, Iteration, PollPolicy};
pub use pre_sleep_spin::PreSleepSpin;
pub use qemu10::Qemu10;
pub use qemu2020::Qemu2020;
pub use rcl::Counts;
pub use ski_rental::SkiRental;
pub use weighted::QemuWeighted;
