//! The types that all layers of the event loop share, and the contract of its backends.
//!
//! If you are writing a backend, depend only on this crate.
//!
//! # How to write a backend
//! 1. Read what implementations of [`Backend`] MUST ensure, and implement its required functions.
//! 2. Keep the [`Watched`] of each registration. It keeps the descriptor open, so a backend needs no `unsafe` code.
//! 3. Run the conformance kit. With the feature `conformance`, one line in a file under `tests/`,
//!    `aio_backend::conformance!(mine, || Mine::new());`, makes a test for each promise, and a random walk.
//! 4. Use [`Registrations`] as the table of registrations, as the epoll, ppoll and io_uring backends do.
//! 5. Pass the backend to the loop as a `Box<dyn Backend>`.
//!
//! This example assumes that every descriptor is always ready, as regular files are, so it makes no system call. Everything else is
//! complete:
//!
//! ```
//! use std::{io, rc::Rc, thread, time::Duration};
//! use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};
//!
//! /// The registrations; a wait starts with the first.
//! #[derive(Debug, Default)]
//! struct Eager(Vec<(Watched, Token, Interest)>);
//!
//! impl Eager {
//!     fn find(&self, token: Token) -> io::Result<usize> {
//!         let place = self.0.iter().position(|(_, known, _)| *known == token);
//!         place.ok_or(io::ErrorKind::NotFound.into())
//!     }
//! }
//!
//! impl Backend for Eager {
//!     fn name(&self) -> &'static str {
//!         "eager"
//!     }
//!     fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
//!         if self.find(token).is_ok() {
//!             return Err(io::ErrorKind::AlreadyExists.into());
//!         }
//!         self.0.push((fd, token, interest)); // `fd` keeps the descriptor open
//!         Ok(())
//!     }
//!     fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
//!         let place = self.find(token)?;
//!         self.0[place].2 = interest;
//!         Ok(())
//!     }
//!     fn remove(&mut self, token: Token) -> io::Result<()> {
//!         let place = self.find(token)?;
//!         self.0.remove(place); // drops `fd`
//!         Ok(())
//!     }
//!     fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
//!         if !self.0.iter().any(|(_, _, interest)| interest.intersects(Interest::BOTH)) {
//!             // No registration can have an event: only the timeout can end this wait.
//!             timeout.map_or_else(thread::park, thread::sleep);
//!         }
//!         for _ in 0..self.0.len() {
//!             let (_, token, interest) = &mut self.0[0];
//!             let readiness = interest.mask() & (Readiness::IN | Readiness::OUT);
//!             if !readiness.is_empty() && !ready.push(*token, readiness) {
//!                 break; // the list is full, and the next wait begins here
//!             }
//!             if interest.contains(Interest::ONESHOT) && !readiness.is_empty() {
//!                 *interest = Interest::NONE;
//!             }
//!             self.0.rotate_left(1);
//!         }
//!         Ok(())
//!     }
//!     fn watched(&self) -> usize {
//!         self.0.len()
//!     }
//!     fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
//!         self.0.iter().for_each(|(fd, token, interest)| each(fd, *token, *interest));
//!     }
//!     fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
//!         self.0.drain(..).for_each(|(fd, token, interest)| each(fd, token, interest));
//!     }
//! }
//!
//! let file = Rc::new(std::fs::File::open(std::env::current_exe()?)?);
//! let token = Token::new(0, 0);
//! let mut backend: Box<dyn Backend> = Box::new(Eager::default());
//! backend.add(file.clone().into(), token, Interest::READ)?;
//! let mut ready = ReadyList::new();
//! backend.wait(None, &mut ready)?;
//! assert_eq!(ready.iter().next(), Some((token, Readiness::IN)));
//! backend.remove(token)?;
//! assert_eq!(Rc::strong_count(&file), 1);
//! # Ok::<(), io::Error>(())
//! ```
//!
//! `examples/third-party-backend` is a real backend in a workspace of its own, with a list of the most common mistakes.
//!
//! # What it does not do
//! It contains no handlers, contexts or clocks, and makes no system calls. (The conformance kit, a test tool
//! behind a feature, makes some.)

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod any;
mod backend;
mod callbacks;
#[cfg(feature = "conformance")]
pub mod conformance;
mod errno;
mod exchange;
mod flag;
mod interest;
mod loop_backend;
mod not_taken;
mod on_demand;
mod operation;
mod ready;
mod ready_lists;
mod refused;
mod registrations;
mod remedy;
mod shared_fd;
#[cfg(test)]
mod stub;
mod submissions;
mod token;
mod watched;

pub use any::AnyBackend;
pub use backend::{Backend, Peek};
pub use callbacks::{CallbackId, Callbacks};
pub use exchange::{NotExchanged, exchange};
pub use flag::Flag;
pub use interest::{Interest, Readiness};
pub use loop_backend::LoopBackend;
pub use not_taken::NotTaken;
pub use on_demand::OnDemand;
pub use operation::{Allocation, Buffers, Completed, FileAction, NotSubmitted, Operation, TransferFlags};
pub use ready::ReadyList;
pub use ready_lists::ReadyLists;
pub use refused::Refused;
pub use registrations::{Entry, Registrations};
pub use remedy::{concerns_all, remedy};
pub use shared_fd::SharedFd;
pub use submissions::Submissions;
pub use token::Token;
pub use watched::Watched;
