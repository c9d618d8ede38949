//! An event loop for storage and virtual machines.
//!
//! A [`Context`] waits for descriptors, timers and deferred callbacks on one thread and, when that is cheaper than
//! sleeping, polls for work in user space first.
//!
//! ```
//! use std::io::{ErrorKind, Write as _};
//! use std::net::TcpListener;
//! use std::time::Duration;
//! use aio_context::{ClockId, Context, PollParams, Wait};
//!
//! # fn main() -> std::io::Result<()> {
//! let cx = Context::new()?; // ppoll, climbing to epoll when it pays
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! listener.set_nonblocking(true)?; // a handler must not wait
//! # let address = listener.local_addr()?;
//! let reg = cx
//!     .on(listener) // owns the descriptor
//!     .readable(|listener, _cx| loop {
//!         match listener.accept() {
//!             Ok((mut client, _)) => drop(client.write_all(b"welcome")),
//!             Err(error) if error.kind() == ErrorKind::WouldBlock => break,
//!             Err(error) => break eprintln!("cannot accept: {error}"),
//!         }
//!     })
//!     .watch()?;
//! let tick = cx
//!     .timer(ClockId::Monotonic, |_, timer| timer.arm_after(Duration::from_millis(100)))
//!     .armed_after(Duration::from_millis(1));
//! let flush = cx.bottom_half("flush", |_cx| { /* once per schedule, on this thread */ });
//! let remote = cx.remote();
//! std::thread::spawn(move || {
//!     flush.schedule();
//!     remote.run(|_cx| { /* once, on the home thread */ })
//! });
//! cx.set_poll_params(PollParams::up_to(Duration::from_micros(32)));
//! for _ in 0..3 {
//!     cx.poll(Wait::Block)?;
//! }
//! # // Two clients, one after the other: each is welcomed, and the loop goes on.
//! # let clients = std::thread::spawn(move || -> std::io::Result<()> {
//! #     for _ in 0..2 {
//! #         let mut welcome = String::new();
//! #         std::io::Read::read_to_string(&mut std::net::TcpStream::connect(address)?, &mut welcome)?;
//! #         assert_eq!(welcome, "welcome");
//! #     }
//! #     Ok(())
//! # });
//! # while !clients.is_finished() {
//! #     cx.poll(Wait::Block)?; // the timer ends it every 100 ms
//! # }
//! # clients.join().unwrap()?;
//! # drop((reg, tick)); Ok(()) }
//! ```
//!
//! # Which call wakes the loop
//! | to have | call | on | a sleeping loop | takes effect |
//! |---|---|---|---|---|
//! | a closure run on the home thread, once | [`Remote::run`], [`Context::defer`] | any thread; home | wakes | in the next iteration |
//! | the same closure run again and again | [`BottomHalf::schedule`] | any thread | wakes | in the next iteration; twice before that is once |
//! | the result of a closure | [`Remote::run_and_wait`], [`Context::run_on`] | any thread; home | wakes | before the call returns |
//! | a [`Source`] served | [`SourceWaker::wake`] | any thread | wakes | in the next iteration |
//! | a condition read again | [`Remote::kick`] | any thread | wakes if a [`wait_while`](Context::wait_while) waits | when the wait reads it |
//! | a blocking [`poll`](Context::poll) return, without work | [`Remote::notify`] | any thread | wakes | at once |
//! | [`run`](Context::run) return | [`Remote::stop`], [`Context::stop`] | any thread; home | wakes | after the iteration |
//!
//! If in doubt, use [`Remote::run`]. [`Remote::notify`] only makes a blocking poll return, and not
//! necessarily the intended one. All of these calls publish the earlier writes of the calling thread.
//!
//! # Pausing handlers
//! [`Context::pause`] silences a group of handlers, such as those of clients, while a program rearranges
//! their data. Events that come meanwhile are not lost:
//!
//! ```
//! use std::cell::Cell;
//! use std::io::Write as _;
//! use std::rc::Rc;
//! use aio_context::{Context, Wait};
//!
//! # fn main() -> std::io::Result<()> {
//! let cx = Context::new()?;
//! let clients = cx.new_group();
//! let (reader, mut writer) = std::io::pipe()?;
//! let calls = Rc::new(Cell::new(0));
//! let count = calls.clone();
//! let _registration = cx
//!     .on(reader)
//!     .readable(move |_reader, _cx| count.set(count.get() + 1))
//!     .group(clients)
//!     .watch()?;
//!
//! let paused = cx.pause(clients);
//! writer.write_all(b"x")?;
//! cx.poll(Wait::NoBlock)?;
//! assert_eq!(calls.get(), 0);
//! drop(paused); // the last guard resumes the group
//! cx.poll(Wait::Block)?;
//! assert_eq!(calls.get(), 1);
//! # Ok(()) }
//! ```
//!
//! # What it does not do
//! The context has no algorithm of its own: a [`Backend`] waits, a [`PollPolicy`] decides how long to poll,
//! and handlers, timers and the inbox for other threads are crates that can be used alone. It has no thread
//! of its own. It reads and writes only its own descriptors, except for an [operation](Submit). It does not
//! use futures: those are in `aio-executor`. Threads that run a context, doorbells, signals and other sources
//! are in `aio-sources`.
//!
//! # Limitations
//! - A double panic (a `Drop` that panics while a callback's panic unwinds) aborts, as everywhere in Rust.
//! - After `fork` without `exec` the child shares the kernel's state of the context and must not use it. It
//!   may drop the values that it has inherited: in another process than the one that made the context,
//!   dropping a registration, a [`Paused`], a timer, a bottom half, a [`Remote`] or the context itself
//!   notifies neither the kernel nor a handler. Handlers are dropped with the context. This holds for `fork`
//!   of the C library; a child of a raw `clone` is not recognised.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod acting;
mod any_backend;
mod bottom_half;
mod builder;
mod clock_id;
mod closures;
mod context;
mod descriptor;
mod descriptors;
mod embed;
mod error;
mod event;
mod extension;
mod handler;
mod iteration;
mod macros;
mod pausing;
mod polling;
mod registration;
mod remote;
mod replacing;
mod run;
mod source;
mod stats;
mod submission;
#[cfg(not(aio_modelled))]
mod sync;
mod timed;
mod timer;
mod timers;
mod wait;

#[cfg(aio_modelled)]
use aio_checker as sync;

pub use aio_backend::{
    Allocation, Backend, Buffers, Completed, FileAction, Interest, NotSubmitted, NotTaken, Operation,
    Readiness, ReadyList, Refused, SharedFd, Token, TransferFlags, Watched,
};
#[cfg(feature = "uring")]
pub use aio_backend_uring::ForeignMemory;
pub use aio_handlers::GroupId;
pub use aio_notify::{HandlerMetrics, HandlerStats, LoopStats as Stats, set_timer_slack, timer_slack};
pub use aio_pollctl::{HandlerMemory, Iteration, Policy, PollParams, PollPolicy, WakeCost};
pub use aio_timers::{Clock, ManualClock, Moment, Subscription, VirtualClock};
pub use any_backend::BackendKind;
pub use bottom_half::BottomHalf;
pub use builder::Builder;
pub use clock_id::ClockId;
pub use closures::{Closures, On};
pub use context::{Context, Wait, WeakContext};
pub use embed::Embedded;
pub use error::{Gone, WatchError};
pub use event::{Action, Event};
pub use handler::{Entry, Exclusive, Handler, HandlerMut, Pollable, Polled};
pub use iteration::measure::PollTime;
pub use pausing::Paused;
pub use registration::Registration;
pub use remote::Remote;
pub use source::{Source, SourceBuilder, SourceWaker};
pub use submission::{Submit, Submitted};
pub use timer::{Delayed, Timer, TimerBuilder};

/// Another name of [`Context`], for files that also use `std::task::Context`.
///
/// # Examples
/// ```
/// use std::task::Context;
/// use aio_context::AioContext;
///
/// fn poll(cx: &AioContext, task: &mut Context<'_>) {}
/// ```
pub type AioContext = Context;
