//! The behaviour of the sources, rule by rule.
//!
//! Each test takes a [`Bench`](aio_testing::Bench), which makes contexts of one kind; `everywhere!` runs it on all kinds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod boards;
mod channels;
mod children;
mod doorbells;
mod file_io;
mod foreign_io;
mod intervals;
mod io_thread;
mod listeners;
mod signals;
mod worker_pools;
