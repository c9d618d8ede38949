//! Policies that decide how long an event loop polls before it sleeps, and state machines that pace a polling loop.
//!
//! Before each wait a [`PollPolicy`] returns a polling budget. After the iteration it observes how long the loop had nothing to
//! do. [`Policy::by_name`] makes any of these:
//!
//! | name | polls |
//! |---|---|
//! | `never`, `always`, `fixed` | not at all, for the whole maximum, for a given time |
//! | `ski-rental` | for the break-even time: at most twice the cost of the optimum |
//! | `qemu-2020` | [`Qemu2020`]: exactly as QEMU's event loop of 2020 |
//! | `qemu-10`, `qemu-weighted` | as QEMU's rule with a time for each handler; with a weighted mean for each handler |
//! | `kvm` | as KVM does before a virtual processor sleeps |
//! | `ewma` | while a moving mean of the waits is below the break-even time |
//! | `learned`, `learned-2` | [`Learned`], [`Learned2`]: for the time that would recently have cost least, with a bound close to that of `ski-rental` |
//!
//! ```
//! use core::time::Duration;
//! use aio_pollctl::{Iteration, Policy, PollParams, PollPolicy};
//!
//! let us = Duration::from_micros;
//! let mut policy = Policy::by_name("qemu-2020", PollParams::up_to(us(32))).expect("a policy of that name");
//! assert_eq!(policy.budget(), us(0));
//! // The loop slept, and the event came after 3 us: polling for 4 us would have found it.
//! policy.observe(Iteration::new(us(3), us(0), true, true));
//! assert_eq!(policy.budget(), us(4));
//! // It found the next one while it polled: the budget stays.
//! policy.observe(Iteration::new(us(2), us(2), false, true));
//! assert_eq!(policy.budget(), us(4));
//! ```
//!
//! A policy with a time for each handler stores it in the [`HandlerMemory`] that the loop keeps beside the handler. The
//! example `per_handler` is such a policy.
//!
//! [`Controller`] applies a policy in a loop: it adopts each [`PollSetting`], keeps the budget within its
//! limits, and passes iterations and handlers to the policy.
//!
//! Smaller state machines pace a loop that polls. The example `pacing` is a loop with all of them.
//!
//! | type | decides |
//! |---|---|
//! | [`CheckPacer`] | when a loop that polls or always has work checks the descriptors, without waiting |
//! | [`ClockStride`] | the number of polling rounds between two readings of the clock |
//! | [`Contention`] | whether polling is suspended because the thread shares its core or has used up its quota |
//! | [`PreSleepSpin`] | whether checking the descriptors for a moment before a sleep is worth it |
//! | [`IdleCosts`] | the idle sources that the loop stops polling |
//! | [`Calibration`] | the cost of a sleep, from measurements that other load may have disturbed |
//!
//! [`Pacing`] contains the first five. Its [`search`](Pacing::search) is the polling of an iteration, made of
//! the steps of a loop that implements [`Search`]. Its [`plan`](Pacing::plan) decides on the check or the
//! wait after that, by the steps of [`Prepare`]. An [`EndedWait`] is the policy's observation of both.
//!
//! # The cost of polling
//! A sleep costs its wake-up latency and some processor time, and costs its peer the kick that ends it.
//! Polling costs the time until the event. The *break-even time* `b` is the polling time that costs as much
//! as a sleep ([`PollParams::break_even_ns`]): `(latency + kicks * kick) / price + cpu`. A policy that
//! observes [`Iteration::kicks`] counts the kicks of a sleep; the others assume one. Polling for up to `s`
//! before a wait of `w` costs `w` if `w <= s`, and `s + b` otherwise. The *clairvoyant optimum* has `w` in
//! advance and costs the smaller of `w` and `b`. The crate `aio-replay` measures policies against it.
//!
//! # What it does not do
//! This crate reads no clock, allocates nothing and draws no random numbers: the same waits give the same
//! results. A policy does not divide after set-up and takes a few nanoseconds for each wait. The crate
//! contains no handlers, descriptors or contexts.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(test)]
extern crate std;

mod always;
mod calibration;
mod ceiling;
mod check_pacer;
mod choice;
mod clock_stride;
mod contention;
mod controller;
mod effective;
mod ended;
mod ewma;
mod explore;
mod fixed;
mod growth;
mod idle_costs;
mod kick_share;
mod kvm;
mod ladder;
mod latency;
mod learned;
mod never;
mod pacing;
mod params;
mod plan;
mod policy;
mod pre_sleep_spin;
mod qemu10;
mod qemu2020;
mod rcl;
mod search;
mod setting;
mod ski_rental;
mod weighted;

pub use always::Always;
pub use calibration::{Calibration, SleepBatch};
pub use check_pacer::CheckPacer;
pub use choice::Policy;
pub use clock_stride::ClockStride;
pub use contention::Contention;
pub use controller::{Controller, PolledHandler};
pub use effective::Effective;
pub use ended::{EndedWait, Waited};
pub use ewma::Ewma;
pub use fixed::Fixed;
pub use idle_costs::IdleCosts;
pub use kvm::Kvm;
pub use learned::{Learned, Learned2, RegretLadder};
pub use never::Never;
pub use pacing::{Paced, Pacing};
pub use params::{PollParams, WakeCost};
pub use plan::{Plan, Prepare, SkipSpin};
pub use policy::{HandlerMemory, Iteration, PollPolicy};
pub use pre_sleep_spin::PreSleepSpin;
pub use qemu10::Qemu10;
pub use qemu2020::Qemu2020;
pub use rcl::Counts;
pub use search::{Search, Searched};
pub use setting::PollSetting;
pub use ski_rental::SkiRental;
pub use weighted::QemuWeighted;

/// Functions that several tests use.
#[cfg(test)]
mod tests {
    use std::println;

    /// Returns the seed of a random test and prints it: the seed of the environment or a new one.
    pub(crate) fn seed() -> u64 {
        let seed = std::env::var("AIO_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| fastrand::u64(..));
        println!("AIO_SEED={seed}");
        seed
    }
}
