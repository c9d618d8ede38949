//! What the tests of several crates share: [`warnings`] that were logged, [`examples`] that are built, and a `Bench` of contexts
//! on every backend (feature `context`).

#![forbid(unsafe_code)]

#[cfg(feature = "context")]
mod bench;
pub mod examples;
mod logged;

#[cfg(feature = "context")]
pub use bench::{Bench, Count, is_readable};
pub use logged::warnings;
