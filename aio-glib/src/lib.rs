//! A [`Context`] as a source of GLib's main loop, and a main loop of GLib inside a context.
//!
//! ```
//! use std::time::Duration;
//! use aio_context::{ClockId, Context};
//!
//! # fn main() -> std::io::Result<()> {
//! let main = glib::MainContext::new(); // or the default one, as `None`
//! let main_loop = glib::MainLoop::new(Some(&main), false);
//! let cx = Context::new()?;
//! let attached = aio_glib::attach(&cx, Some(&main))?;
//! let quit = main_loop.clone();
//! let timer = cx.timer(ClockId::Monotonic, move |_, _| quit.quit());
//! let _timer = timer.armed_after(Duration::from_millis(1));
//! main_loop.run(); // serves the sources of GLib and those of the context
//! # drop(attached); Ok(()) }
//! ```
//!
//! [`attach`] is for most programs. [`source_new`] makes only the source. [`watch_main_context`] is the
//! reverse: a context that serves the sources of a GLib main context.
//!
//! # How it works
//! The source has GLib's own steps. `prepare` leaves poll mode right before the main loop sleeps, and gives
//! GLib the time to the next deadline; `check` and `dispatch` serve what is due. GLib waits in whole
//! milliseconds, so timers fire up to a millisecond late and never early. The context is not busy-polled
//! while GLib waits. A callback of the context may run a main loop of GLib, which also serves the source.
//!
//! # Threads
//! The main context must run on the home thread of the context. On another thread the source does nothing: it logs one error and is
//! removed.
//!
//! # Panics in callbacks
//! GLib is C, through which a panic cannot unwind: the process aborts, as for every callback of the crate
//! `glib`. With [`iteration`] instead of [`MainContext::iteration`](glib::MainContext::iteration) the panic
//! unwinds out of the iteration, and context and main loop can go on.
//!
//! # What it does not do
//! It runs no futures, and makes GLib no faster: GLib walks over all its sources in each iteration. If a
//! program's own loop is a context, and it needs GLib only for a part, prefer [`watch_main_context`].
//!
//! [`Context`]: aio_context::Context
#![cfg_attr(docsrs, feature(doc_cfg))]

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod attached;
mod main_context;
mod panics;
mod source;

pub use attached::{Attached, attach};
pub use main_context::watch_main_context;
pub use panics::iteration;
pub use source::source_new;
