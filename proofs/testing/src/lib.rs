//! Code that the tests of several crates share: built [`examples`], the [`seed()`] of a random test, the
//! warnings that were logged (feature `logged`), backends that change the results of another one, fail or
//! take their time (feature `backend`), and a `Bench` of contexts on every backend (feature `context`).

#![forbid(unsafe_code)]

/// The examples of the README of the workspace. Contexts are a feature here, which the tests of every crate
/// above `aio-context` enable.
#[cfg(all(doctest, feature = "context"))]
#[doc = include_str!("../../../README.md")]
mod readme {}

#[cfg(feature = "context")]
mod bench;
pub mod examples;
#[cfg(feature = "backend")]
mod layer;
#[cfg(feature = "logged")]
mod logged;
mod seed;
#[cfg(feature = "backend")]
mod spoiled;

#[cfg(feature = "context")]
pub use bench::{Bench, Count, is_readable, limited, poll_embedded};
#[cfg(feature = "backend")]
pub use layer::{Layer, Layered};
#[cfg(feature = "logged")]
pub use logged::{events, warnings};
pub use seed::seed;
#[cfg(feature = "backend")]
pub use spoiled::{Spoil, Spoiled, spoiled};
