//! A vhost-user block daemon on one event loop: the loop's real job, and an example of how to use it.
//!
//! Every virtqueue is a handler with a kick eventfd that can also be polled: the loop looks at the available index in the
//! client's memory before it sleeps, while the client is asked not to kick. The protocol's messages are handled by the
//! same loop, as are new clients, signals and time.
//!
//! | module | is for |
//! |---|---|
//! | `cli` | what can be asked for |
//! | `server` | all exports on one context |
//! | `acceptor` | an export's socket, one client at a time |
//! | `session` | a client's messages, each when it is complete |
//! | `backend` | what the messages do: memory, queues |
//! | `vring` | a running queue: the handler |
//! | `ring`, `chain`, `memory` | what lies in the client's memory |
//! | `request`, `disk`, `features` | the block device |
//!
//! # Limitations
//! - Image files are read and written synchronously: a slow file delays all exports of the daemon.
//! - A client shares its memory and eventfds, and can hurt whoever maps or writes them: by cutting the memory's file short
//!   (a bus error), or by filling an eventfd that it told to call (the write then waits). Give sockets to clients you trust
//!   that far.
//! - Not offered: packed rings, live migration (dirty log, in-flight buffers), multi-process polling without a kick.
#![forbid(unsafe_code)]

mod acceptor;
mod backend;
mod chain;
mod cli;
mod disk;
mod features;
mod link;
mod memory;
mod recorder;
mod request;
mod ring;
mod server;
mod session;
mod vring;

pub use cli::{Args, Export, MOST_QUEUES, Waiter, parse_duration, parse_size};
pub use disk::Source;
pub use server::{Server, Stopper, serve};
