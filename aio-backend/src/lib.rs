//! The words every layer of the event loop shares, and the contract of the layer that waits.
//!
//! If you are writing a backend, depend only on this crate.
//!
//! # What it does not do
//! It knows nothing of handlers, contexts or clocks, and makes no system call (the conformance kit, which is a test
//! tool behind a feature, does).

mod backend;
mod interest;
mod ready;
mod token;
mod watched;

pub use backend::{Backend, Peek};
pub use interest::{Interest, Readiness};
pub use ready::ReadyList;
pub use token::Token;
pub use watched::Watched;
