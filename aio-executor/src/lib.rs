//! async/await on a [`Context`](aio_context::Context): tasks, readiness and timers as futures, and moves of a task from one context to
//! another.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//! use aio_context::Context;
//! use aio_executor::{AsyncFd, ContextExt, current, sleep, spawn, timeout};
//!
//! # fn main() -> std::io::Result<()> {
//! let cx = Context::new()?;
//! let answer = cx.block_on(async {
//!     let (ours, theirs) = UnixStream::pair()?;
//!     let (ours, theirs) = (AsyncFd::new(&current(), ours)?, AsyncFd::new(&current(), theirs)?);
//!     let server = spawn(async move {
//!         sleep(Duration::from_millis(1)).await;
//!         theirs.write_with(|mut socket| socket.write(b"done")).await
//!     });
//!     let mut text = [0; 4];
//!     let read = ours.read_with(|mut socket| socket.read(&mut text));
//!     let in_time = timeout(Duration::from_secs(10), read).await;
//!     assert!(matches!(server.await, Ok(Ok(4))));
//!     in_time.unwrap_or_else(|late| Err(std::io::Error::other(late))).map(|read| text[..read].to_vec())
//! })??;
//! assert_eq!(answer, b"done");
//! # Ok(()) }
//! ```
//!
//! # How a task runs
//! A wake queues the task's node in an inbox of `aio-notify`, as scheduling queues a bottom half. It also
//! schedules the one [bottom half](aio_context::BottomHalf) of the context that polls the queued tasks. A
//! wake therefore works from any thread, allocates nothing and is never lost, and several wakes before the
//! poll lead to one poll.
//!
//! Tasks are polled in the order of their wakes, at most 64 in a row, including those that are woken
//! meanwhile. The context then continues with its other work. A task that is woken while it is polled runs
//! again in the next iteration. A poll of the context inside a task polls the other tasks.
//!
//! A context owns its tasks, and drops them on its thread when it is dropped itself. Another thread's wake at
//! that moment has no effect, because a wake carries the number of a task and never the future. The crate
//! `async-task`, on which other executors are built, hands the task itself to the thread that wakes it: if
//! the executor is gone by then, that thread has to drop the future.
//!
//! # Threads
//! Futures of [`ContextExt::spawn`] stay on their thread and need not be `Send`. Those of [`RemoteExt::spawn`] are `Send`, and can
//! [`hop`](hop()) from context to context. [`JoinHandle`] and [`Mutex`] are for any thread; [`AsyncFd`] and [`Sleep`] belong to a context.
//!
//! # What it does not do
//! It starts no threads and steals no work: each task runs where it was sent. It uses only the public API of
//! a context.
//!
//! # Limitations
//! - A task that owns a clone of its context is a cycle: the context is not dropped before the task is done. [`current`](current()) returns the
//!   context where it is needed.
//! - A context keeps the memory for the largest number of tasks that it had at once, some 200 bytes each, until it is dropped.
//! - A context cannot be dropped before a [`block_on`](ContextExt::block_on) on it has returned.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod async_fd;
mod current;
mod ext;
mod hop;
mod io;
mod join;
mod mutex;
mod operation;
mod sending;
mod sleep;
#[cfg(not(aio_modelled))]
mod sync;
mod tasks;
mod waiters;
mod waker;
mod work;
mod yielding;

#[cfg(aio_modelled)]
use aio_checker as sync;

pub use async_fd::{AsyncFd, Ready};
pub use current::{current, try_current};
pub use ext::{ContextExt, RemoteExt, spawn};
pub use hop::{Hop, HopError, hop};
pub use join::{JoinError, JoinHandle, PanicValue};
pub use mutex::{Guard, Lock, Mutex};
pub use operation::{Operating, submit};
pub use sleep::{Elapsed, Sleep, sleep, sleep_until, timeout};
pub use yielding::{YieldNow, yield_now};
