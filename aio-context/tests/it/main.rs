//! The behaviour of a context, rule by rule, on every backend, polled directly and through a foreign loop.
//!
//! Each test takes a [`Bench`](common::Bench), which makes contexts of one kind; `everywhere!` runs it on all kinds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

mod adapting;
mod after;
mod backends;
mod blocking;
mod bottom_halves;
mod bursts;
mod closures;
mod demotion;
mod demotion_ends;
mod dispatch;
mod edges;
mod equivalents;
mod events;
mod exclusive;
mod extensions;
mod foreign;
mod found_traces;
mod kinds;
mod last_check;
mod log_events;
mod metrics;
mod mutual;
mod negative;
mod pause_panics;
mod pausing;
mod peeking;
mod poll_mode;
mod polling;
mod progress;
mod registry;
mod remote;
mod replacing;
mod running;
mod sources;
mod stats;
mod submission;
mod tidy;
mod timers;
mod traces;
mod unchecked;
mod waits;
mod wall;
