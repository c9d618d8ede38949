//! What the conformance kit does not test: what the backend keeps of a file, how often it enters the kernel, and its faults.
//!
//! Where the system has no `io_uring`, or forbids it, each test prints a line that begins with `skipped`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod faults;
mod kit;
mod letting_go;
mod many;
mod operations;
mod raw_close;
mod refused_enters;
mod sockets;
mod stale;
mod system_calls;
