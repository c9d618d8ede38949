//! The daemon against a real driver, against clients that break the rules, and as a process.

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
