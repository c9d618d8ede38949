//! What the tests of several crates share: [`examples`] that are built, warnings that were logged (feature `logged`), and a `Bench` of
//! contexts on every backend (feature `context`).

#![forbid(unsafe_code)]

#[cfg(feature = "context")]
mod bench;
pub mod examples;
#[cfg(feature = "logged")]
mod logged;

#[cfg(feature = "context")]
pub use bench::{Bench, Count, is_readable, limited, poll_embedded};
#[cfg(feature = "logged")]
pub use logged::warnings;
