//! The hundred hostile cases, by number: conditions that a loop under storage must survive, on every backend.
//!
//! TESTING.md has the list. A case that belongs to another crate has its test there, under the same kind of name. Long cases
//! run with small numbers unless `AIO_HOSTILE=long`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../it/common.rs"]
#[allow(dead_code, reason = "the other suite uses more of it")]
mod common;
#[path = "../counting/mod.rs"]
mod counting;
#[path = "../it/kinds.rs"]
mod kinds;

mod fixtures;
mod process;

mod bottom_halves;
mod callbacks;
mod check;
mod descriptors;
mod events;
mod life;
mod limits;
mod panics;
mod polling;
mod system;
mod threads;
mod timers;
