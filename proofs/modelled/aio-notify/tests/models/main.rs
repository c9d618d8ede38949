//! Small programs of a loop and its posters, in every order that loom supports, including weak memory.
#![allow(clippy::unwrap_used, reason = "a panic is what a model finds")]
#![allow(
    clippy::arc_with_non_send_sync,
    reason = "loom's cells, which all threads of a model share"
)]

mod board;
mod bursts;
mod inbox;
mod mailbox;
mod modelling;
mod notifier;
