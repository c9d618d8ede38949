//! The behaviour of tasks and futures, rule by rule.
//!
//! Each test takes a [`Bench`](common::Bench), which makes contexts of one kind; `everywhere!` runs it on all kinds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

mod descriptors;
mod ends;
mod equivalents;
mod hops;
mod joining;
mod mutexes;
mod operations;
mod tasks;
mod timers;
