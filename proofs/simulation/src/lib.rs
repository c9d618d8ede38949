//! The real event loop on a simulated kernel: seeded faults, and then a phase without any, in which everything must be
//! served.
//!
//! A run is one number, its seed. The seed chooses a backend, a polling policy, a clock and how often calls fail; then
//! operations are drawn, by the user of the loop and by "other threads" and peers, which act whenever the loop enters the
//! kernel, reads its clock, or asks a handler. Nothing sleeps and nothing runs beside anything else, so a seed does the same
//! every time.
//!
//! The loop is the real one, down to [`aio_backend_epoll::sys`] and [`aio_backend_ppoll::sys`]. What the kernel knows is in
//! `kernel`, how calls fail in `calls`, what is done in `ops`, `later` and `deeds`, and what must hold in `checks`.
//!
//! # What it does not do
//! It knows no memory orders: a thread acts between two operations of another, never in the middle of one.

#![forbid(unsafe_code)]

mod calls;
mod checks;
mod clock;
mod deeds;
mod driver;
mod kernel;
mod later;
mod ops;
mod plant;
mod port;
mod world;

pub use driver::{Failure, Summary, run};
pub use plant::Plant;
