//! The exported values are those of `Stats` and `HandlerStats` (rules M1, M2).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod example;
mod exporting;
mod page;
