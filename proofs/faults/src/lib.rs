//! Every system call that the loop makes fails at its N-th call, with everything that its manual page allows, for N = 1, 2, ...
//! until a run has no such call left.
//!
//! A run is a small [`program`] that does a known amount of work. Whatever fails, it must end with all of it done,
//! without more calls than a few times those of an undisturbed run, without a descriptor left, and each failure must be
//! repeated unseen, cause a fall-back with one warning, or come out as an error that names the cause and
//! helps.
//!
//! # What it does not do
//! Only single calls fail, or a few in a row, or every second one: a kernel that refuses everything for ever is not met. The
//! eventfd's own calls are made to fail from outside, by strace.

#![forbid(unsafe_code)]

mod calls;
pub mod program;
mod sweep;

pub use calls::{Call, Fault, Plant};
pub use program::{Kind, has_uring};
pub use sweep::{Sweep, Verdict, disturbed, errors_of};
