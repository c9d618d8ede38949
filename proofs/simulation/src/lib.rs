//! The real event loop on a simulated kernel: seeded faults, and then a phase without any, in which everything must be
//! served.
//!
//! A run is one number, its seed. The seed chooses a backend, a polling policy, a clock and how often calls fail; then it
//! chooses operations: those of the loop's user, and those of "other threads" and peers, which act whenever the loop enters the
//! kernel, reads its clock, or polls a handler. Nothing sleeps and nothing runs in parallel, so a seed always has the same result.
//!
//! The loop is the real one, down to [`aio_backend_epoll::sys`], [`aio_backend_ppoll::sys`] and [`aio_backend_uring::sys`]. The
//! simulated kernel is in `kernel`, `poll_requests`, `arming` and `ring`, failing calls in `calls`, what the user does in `ops`, `deferred`, `disturbances`
//! and `operations`, what others do in `actions`, and the conditions that must hold in `checks`.
//!
//! # What it does not do
//! It knows no memory orders: a thread acts between two operations of another, never in the middle of one. The simulated ring begins
//! behind [`aio_backend_uring::sys::Ring`]: the code that writes entries for the kernel is not a part of it.

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
