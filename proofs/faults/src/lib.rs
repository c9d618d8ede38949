//! Every system call that the loop makes fails at its N-th call, with every error that its manual page
//! allows, for N = 1, 2, ... until a run has no such call left.
//!
//! A run is a small [`program`] that does a known amount of work. With any fault, the run must complete all
//! of it, without more calls than a few times those of an undisturbed run, and leave no descriptor open. The
//! loop must handle each failure in one of three ways: repeat the call without a visible effect, fall back
//! with one warning, or return an error that names the cause and a remedy.
//!
//! # What it does not do
//! Only single calls fail, or a few in a row, or every second one: no run has a kernel that refuses
//! everything for ever. strace makes the eventfd's own calls fail, from outside.

#![forbid(unsafe_code)]

mod calls;
pub mod program;
mod sweep;

pub use calls::{Call, Fault, Plant};
pub use program::{Kind, has_uring};
pub use sweep::{Sweep, Verdict, disturbed, errors_of};
