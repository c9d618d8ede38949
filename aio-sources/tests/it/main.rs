//! The behaviour of the sources, rule by rule.
//!
//! Each test takes a [`Bench`](aio_testing::Bench), which makes contexts of one kind; `everywhere!` runs it on all kinds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod boards;
mod channels;
mod children;
#[path = "../../../aio-context/tests/it/common.rs"]
#[allow(dead_code, unused_imports, reason = "the tests of contexts use more of it")]
mod common;
mod doorbells;
mod file_io;
mod foreign_io;
mod intervals;
mod io_thread;
#[path = "../../../aio-context/tests/it/kinds.rs"]
#[allow(unused_imports, reason = "the tests of contexts use it")]
mod kinds;
mod listeners;
mod nested;
mod signals;
mod worker_pools;
