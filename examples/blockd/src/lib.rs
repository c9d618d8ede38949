//! A vhost-user block daemon on one event loop, or on several.
//!
//! Every virtqueue is a handler with a kick eventfd, and can be polled: before the loop sleeps, it checks the
//! available index in the client's memory, and suppresses the client's kicks meanwhile. The same loop handles
//! the protocol's messages, new clients and timers. With `--iothreads` there are several loops, and each
//! export belongs to one of them.
//!
//! | module | contains |
//! |---|---|
//! | `cli`, `export`, `advice` | the command line, and warnings about likely mistakes |
//! | `serial` | serial numbers of disks |
//! | `server`, `stopper` | the daemon without its process, and its end |
//! | `exports`, `opened` | all exports; adding, removing and resizing them |
//! | `loops` | the event loops and their threads; the exports on each of them |
//! | `polling`, `background` | the loop's polling, which can change; threads for work that may block |
//! | `control` | the control socket and `blockd ctl` |
//! | `stats`, `figures`, `metrics` | counters of queues; the figures that the daemon reports; the page for Prometheus |
//! | `peers` | clients that send requests as bytes and get replies |
//! | `acceptor` | accepts an export's clients, one at a time |
//! | `socket` | a listening socket and the ownership of its path |
//! | `session`, `arrived`, `concerned`, `connection` | a client's messages, each handled once it is complete; the test for that; the queues that a message concerns; the end of a connection |
//! | `backend` | the effect of the messages: features, memory |
//! | `queue` | the state machine of a queue: the effect of each message on it |
//! | `vring`, `host` | a running queue: the handler; the objects with which a loop serves the queues of an export |
//! | `remote_hosts`, `hosted`, `calls` | queues of an export on other loops than that of its session; calls between loops |
//! | `engine`, `ring_engine`, `ring_flushes`, `outstanding` | the executors of requests of images; requests that have not completed |
//! | `inflight` | outstanding requests in memory of the client, for the daemon that replaces a killed one |
//! | `ring`, `descriptor_chain`, `buffers`, `guest_buffers`, `memory` | virtqueues and buffers in the client's memory |
//! | `channel` | messages from the daemon to its client |
//! | `dirty_log` | the pages that the device has written, for clients that migrate |
//! | `eventfd` | eventfds of clients |
//! | `sigbus` | the handler of SIGBUS, for memory that a client truncates |
//! | `request`, `disk`, `features` | the block device |
//! | `nbd` | the other protocol: NBD clients, their handshakes and requests |
//! | `process`, `pid_file`, `peer_process` | the interface to a service manager; the process at the other end of a socket |
//! | `log`, `limit` | the log, which never blocks, and limits for lines that clients cause |
//! | `recorder` | records waits, to compare polling policies |
//!
//! # Limitations
//! - The lock of an image protects against QEMU, other hypervisors and other instances of this daemon. It
//!   does not protect against programs that take no locks, nor against access to the same bytes by another
//!   name, such as a loop device over the image.
//! - Eventfds are made non-blocking when a client passes them. A client can make the daemon wait: it makes
//!   its eventfd blocking again, and fills it (call) or empties it (kick) just before the daemon uses it. No
//!   system call can override the flags of an eventfd. Give sockets only to clients that you trust not to do
//!   that.
//! - Pages of shared memory that the daemon accesses first are accounted to the daemon, not to the client.
//! - Not offered: packed rings, queues without a kick descriptor.
#![deny(unsafe_code)]
// These macros panic or block if standard error is not read.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod acceptor;
mod adoption;
mod advice;
mod arrived;
mod backend;
mod background;
mod buffers;
mod call_pacer;
mod calls;
mod channel;
mod cli;
mod concerned;
mod connection;
mod control;
mod descriptor_chain;
mod dirty_log;
mod disk;
mod duration;
mod engine;
mod eventfd;
mod export;
mod exports;
mod features;
mod figures;
mod floor;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod guest_buffers;
mod host;
mod hosted;
mod inflight;
mod limit;
mod log;
mod loops;
mod memory;
mod metrics;
mod nbd;
mod opened;
mod outstanding;
mod peer_process;
mod peers;
mod pid_file;
mod polling;
mod process;
mod queue;
mod recorder;
mod remote_hosts;
mod request;
mod ring;
mod ring_engine;
mod ring_flushes;
mod serial;
mod server;
mod session;
mod sigbus;
mod socket;
mod stats;
mod stopper;
mod vring;
mod written_file;

pub use cli::{Args, Command};
pub use control::{CtlArgs, ctl};
pub use disk::Source;
pub use engine::Engine;
pub use export::{Export, IoThreads, MOST_QUEUES};
#[doc(hidden)]
pub use floor::{FloorLoop, serve_on_floor};
pub use log::{Log, LogFormat, LogLevel};
pub use nbd::Address as NbdAddress;
pub use pid_file::PidFile;
pub use process::{PassedSockets, Process, notify};
pub use server::{Server, serve};
pub use stopper::Stopper;
