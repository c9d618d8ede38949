//! Sources for [`aio_context`]: the things that programs attach to a context besides plain descriptors,
//! timers and bottom halves.
//!
//! | type | calls back when |
//! |---|---|
//! | [`Doorbell`] | another thread or process has written an eventfd, whose counter is never read |
//! | [`DoorbellBoard`] | another thread of this process has rung one of thousands of bells, by one atomic operation |
//! | [`Channel`] | a thread has sent a value, or the last sender is gone |
//! | [`ChildExit`] | a child process has ended |
//! | [`FileIo`] | a file operation has ended, which the ring of the context or a thread has executed |
//! | [`Interval`] | a period has passed, at a fixed rate |
//! | [`Listener`] | a client was accepted, by a TCP or Unix socket |
//! | [`Signals`] | a signal has come |
//! | [`WorkerPool`] | work that blocks has ended on a thread of the pool |
//!
//! All except [`FileIo`] and [`WorkerPool`] can be members of a group that is
//! [paused](aio_context::Context::pause): their functions that end in `_in` take a group.
//!
//! [`IoThread`] is a thread with a context on it, and [`Nested`] a context inside another one.
//! [`WakeCalibration`] measures the cost of a sleep, and [`WakeRefinement`] measures it again while a loop
//! runs. [`CpuQuota`] limits polling to a part of the processor time that control groups allow.
//!
//! ```
//! use std::sync::mpsc;
//! use aio_sources::{DoorbellBoard, IoThread};
//!
//! # fn main() -> std::io::Result<()> {
//! let (served, queues) = mpsc::channel();
//! let (hand_out, bells) = mpsc::channel();
//! let io = IoThread::spawn(move |cx| {
//!     let board = DoorbellBoard::new(cx, 1000, move |_cx, queue| {
//!         let _ = served.send(queue);
//!     });
//!     let _ = hand_out.send(board.bell(617));
//!     Ok(board) // lives as long as the thread
//! })?;
//! let bell = bells.recv().unwrap();
//! bell.ring();
//! assert_eq!(queues.recv(), Ok(617));
//! io.stop()
//! # }
//! ```
//!
//! Everything here uses only the public interface of `aio-context` and of the crates below it, so it also
//! shows how to write a source: one with a descriptor implements [`Handler`](aio_context::Handler), one
//! without implements [`Source`](aio_context::Source).
//!
//! # What it does not do
//! It uses no internals of a context, and has no loop of its own.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod accept;
mod acceptor;
mod board;
mod channel;
mod child;
mod cpu_quota;
mod doorbell;
mod error;
mod event;
mod execute;
mod file_io;
mod interval;
mod io_thread;
mod listener;
mod nested;
mod process;
mod receiver;
mod sender;
mod signal;
mod signal_set;
mod signals;
#[cfg(not(aio_modelled))]
mod sync;
mod ticks;
mod wake_calibration;
mod wake_refinement;
mod worker_demand;
mod worker_pool;
mod worker_queue;

#[cfg(aio_modelled)]
use aio_checker as sync;

pub use accept::Accept;
pub use board::{Bell, DoorbellBoard};
pub use channel::Channel;
pub use child::ChildExit;
pub use cpu_quota::CpuQuota;
pub use doorbell::Doorbell;
pub use error::AddError;
pub use event::Event;
pub use file_io::{FileIo, FileOperation};
pub use interval::Interval;
pub use io_thread::{IoThread, IoThreadBuilder};
pub use listener::Listener;
pub use nested::Nested;
pub use sender::Sender;
pub use signal::Signal;
pub use signals::{Received, Signals};
pub use wake_calibration::{WakeCalibration, measure_wake_cost};
pub use wake_refinement::WakeRefinement;
pub use worker_pool::WorkerPool;
