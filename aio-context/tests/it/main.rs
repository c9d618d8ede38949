//! The behaviour of a context, rule by rule, on every backend, polled directly and through a foreign loop.
//!
//! Each test takes a [`Bench`](common::Bench), which makes contexts of one kind; `everywhere!` runs it on all kinds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

mod adapting;
mod backends;
mod boards;
mod bottom_halves;
mod check;
mod closures;
mod cooling;
mod dispatch;
mod doorbells;
mod equivalents;
mod executor;
mod foreign;
mod io_thread;
mod last_look;
mod model;
mod negative;
mod pausing;
mod polling;
mod registry;
mod remote;
mod replay;
mod tidy;
mod timers;
mod trace;
mod traces;
mod warnings;
