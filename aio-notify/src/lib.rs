//! The one entrance for other threads into an event loop.
//!
//! - [`Notifier`]: wakes a sleeping loop, and costs next to nothing while the loop is awake (rules N1-N6).
//! - [`Inbox`]: a lock-free queue of [`Node`]s and [`Message`]s; a node is in it at most once, and posting one allocates nothing. The
//!   loop takes them into a [`RunQueue`].
//! - [`Board`]: a bitmap of doorbells that a loop checks while it polls, one bit for each source.
//! - [`Published`]: a small value that other threads set and the loop reads without a lock.
//! - [`Counter`]: a figure that the loop counts and other threads read. [`LoopCounters`] and
//!   [`HandlerMetrics`]: the figures of a loop and of a handler. [`WeakMap`]: finds shared values by name
//!   while they are in use.
//! - [`reply`](reply()): the result of a message, for a thread that blocks or polls for it.
//! - [`Nesting`]: the depth and the progress of the home thread's polls, which may run inside each other.
//! - [`EventNotifier`]: the eventfd underneath, also for other uses.
//! - [`ClockChanges`]: ends a sleep when the wall clock is set. [`set_timer_slack`]: sets how late the kernel
//!   may end a sleep.
//!
//! A thread with work for the loop first posts it and then notifies, in this order:
//!
//! ```
//! use aio_notify::{Inbox, Item, Node, Notifier, RunQueue, Urgency};
//!
//! # fn main() -> std::io::Result<()> {
//! let (notifier, inbox) = (Notifier::new()?, Inbox::<&str>::new());
//! let node = Node::new("flush");
//! inbox.post(&node, Urgency::Normal);
//! notifier.notify();
//!
//! // The loop: accept first, then take, so that a post in between notifies again.
//! assert!(notifier.accept());
//! let mut queue = RunQueue::new();
//! queue.take(&inbox);
//! while let Some(node) = queue.pop() {
//!     assert_eq!(node.payload(), Some(&"flush"));
//!     assert!(matches!(node.begin(), Item::Normal));
//! }
//! # Ok(()) }
//! ```
//!
//! # What it does not do
//! It gives messages no meaning, does not wait (a backend does), and has no timers.
//!
//! # How it is checked
//! All orderings are model-checked: `cargo xtask check --only loom` runs the models of `proofs/modelled`. It
//! then runs them again with each fault of a list, planted on purpose, which a model must find.
#![cfg_attr(docsrs, feature(doc_cfg))]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod board;
mod clock_changes;
mod counter;
mod cpu_time;
mod deferred;
mod event_notifier;
#[cfg(not(aio_modelled))]
mod eventfd;
mod guards;
mod handle;
mod handler_metrics;
mod home;
mod inbox;
mod loop_counters;
mod mailbox;
mod nesting;
mod node;
mod process;
mod protocol;
mod published;
mod reply;
mod run_queue;
mod slack;
mod sleep;
mod state;
#[cfg(not(aio_modelled))]
mod sync;
mod weak_map;

#[cfg(aio_modelled)]
use aio_checker as sync;

pub use board::Board;
pub use clock_changes::ClockChanges;
pub use counter::Counter;
pub use cpu_time::{thread_cpu_time, thread_run_delay};
pub use deferred::{Deferred, Due, Round, Slot};
pub use event_notifier::EventNotifier;
pub use guards::{PlanGuard, SleepGuard, WaitGuard};
pub use handle::Handle;
pub use handler_metrics::{HandlerCounters, HandlerMetrics, HandlerStats};
pub use home::HomeThread;
pub use inbox::{Inbox, Posted};
pub use loop_counters::{LoopCounters, LoopStats};
pub use mailbox::{Interrupted, Mailbox};
pub use nesting::{BeforePoll, IterationGuard, Nesting};
pub use node::{Dequeued, Item, Message, Node};
pub use process::HomeProcess;
pub use protocol::Notifier;
pub use published::Published;
pub use reply::{Lost, ReplyReceiver, ReplySender, reply};
pub use run_queue::RunQueue;
pub use slack::{set_timer_slack, timer_slack};
pub use sleep::{SleepCost, SleepMeter};
pub use state::Urgency;
pub use weak_map::WeakMap;
