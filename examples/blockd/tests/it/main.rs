//! The daemon against a real driver, against clients that break the rules, and as a process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod malformed;
mod many;
mod process;
mod protocol;
mod raw;
mod reconnect;
mod server;
mod serving;
mod transitions;
