//! The real event loop on a simulated kernel: seeded faults, and then a phase without faults, in which all
//! pending work must be done.
//!
//! A run is one number, its seed. The seed chooses a backend, a polling policy, a clock and the rates of
//! failing calls. Then it chooses operations: those of the loop's user, and those of "other threads" and
//! peers, which act each time the loop enters the kernel, reads its clock, or polls a handler. Nothing sleeps
//! and nothing runs in parallel, so a seed always has the same result.
//!
//! The loop is the real one, down to [`aio_backend_epoll::sys`], [`aio_backend_ppoll::sys`] and
//! [`aio_backend_uring::sys`]. The simulated kernel is in `kernel`, `poll_requests`, `arming` and `ring`,
//! failing calls in `calls`, the user's operations in `ops`, `deferred`, `disturbances` and `operations`, the
//! actions of others in `actions`, and the conditions that must hold in `checks`.
//!
//! # What it does not do
//! It does not model memory orders: a thread acts between two operations of another, never during one. The
//! simulated ring replaces [`aio_backend_uring::sys::Ring`], so the code that writes entries for the kernel
//! is not tested.

#![forbid(unsafe_code)]

mod action;
mod actions;
mod arming;
mod calls;
mod checks;
mod clock;
mod deferred;
mod disturbances;
mod driver;
mod handler;
mod kernel;
mod operations;
mod ops;
mod plant;
mod poll_requests;
mod port;
mod ring;
mod ring_calls;
mod submission;
mod target;
mod world;

pub use driver::{Failure, Summary, run};
pub use plant::Plant;
