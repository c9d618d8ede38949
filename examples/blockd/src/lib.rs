//! A vhost-user block daemon on one event loop: the loop's real job, and an example of how to use it.
//!
//! Every virtqueue is a handler with a kick eventfd that can also be polled: the loop looks at the available index in the
//! client's memory before it sleeps, while the client is asked not to kick. The protocol's messages are handled by the
//! same loop, as are new clients, signals and time.
//!
//! | module | is for |
//! |---|---|
//! | `cli`, `advice` | what can be asked for, and what is most likely a mistake |
//! | `serial` | serial numbers of disks |
//! | `server` | all exports on one context |
//! | `acceptor` | an export's clients, one at a time |
//! | `socket` | the name of a listening socket, and who may have it |
//! | `session` | a client's messages, each when it is complete |
//! | `backend` | what the messages do: features, memory |
//! | `queue` | the state machine of a queue: what each message does to it |
//! | `vring` | a running queue: the handler |
//! | `ring`, `chain`, `memory` | what lies in the client's memory |
//! | `guard` | the daemon survives the loss of that memory |
//! | `request`, `disk`, `features` | the block device |
//! | `log`, `limit` | log lines that nobody waits for, and how many a client can cause |
//!
//! # Limitations
//! - Image files are read and written synchronously: a slow file delays all exports of the daemon.
//! - The lock of an image holds against QEMU, other hypervisors and this daemon. It does not hold against programs that take
//!   no locks, and not against access to the same bytes by another name, such as a loop device over the image.
//! - Eventfds are made non-blocking when a client hands them over. A client that makes its own blocking again, and fills it
//!   (call) or empties it (kick) just before it is used, makes the daemon wait: no system call writes to an eventfd
//!   whatever its flags. Give sockets to clients you trust that far.
//! - Pages that the daemon is first to touch count as its memory, not the client's.
//! - Not offered: packed rings, live migration (dirty log, in-flight buffers), multi-process polling without a kick.
#![deny(unsafe_code)]
// They panic, or wait, if nobody takes what is printed.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod acceptor;
mod advice;
mod backend;
mod chain;
mod cli;
mod disk;
mod features;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod limit;
mod link;
mod log;
mod memory;
mod queue;
mod recorder;
mod request;
mod ring;
mod serial;
mod server;
mod session;
mod socket;
mod vring;

pub use cli::{Args, Export, MOST_QUEUES, Waiter, parse_duration, parse_size};
pub use disk::Source;
pub use log::{Log, LogFormat};
pub use server::{Server, Stopper, serve};
