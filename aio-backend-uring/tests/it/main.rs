//! Tests beyond the conformance kit: the references to files that the backend keeps, the number of times that
//! it enters the kernel, and its faults.
//!
//! If the system has no `io_uring`, or forbids it, each test prints a line that begins with `skipped`.

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
