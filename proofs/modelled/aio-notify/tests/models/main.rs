//! Small programs of a loop and its posters, in every order that loom knows, weak memory included.
#![allow(clippy::unwrap_used, reason = "a panic is what a model finds")]

mod board;
mod bursts;
mod inbox;
mod mailbox;
mod modelling;
mod notifier;
