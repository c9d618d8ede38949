//! The ladder's own promises. That it is a backend like any other is for the conformance kit to show.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failures;
mod faulty;
mod moves;
mod traffic;
mod warnings;
mod world;
