//! The promises of the ladder itself. The conformance kit tests that it is a backend like any other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failures;
mod faulty;
mod moves;
mod operations;
mod pollable;
mod preferred;
mod traffic;
mod world;
