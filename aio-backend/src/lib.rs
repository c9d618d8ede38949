//! The words every layer of the event loop shares, and the contract of the layer that waits.
//!
//! If you are writing a backend, depend only on this crate.
//!
//! # How to write a backend
//! 1. Read what [`Backend`] says implementations MUST ensure, and implement its six required functions.
//! 2. Keep the [`Watched`] share of everybody who is watched. It is all that is needed for safety: there is no `unsafe`.
//! 3. Have the conformance kit test it. With the feature `conformance`, one line in a file under `tests/`,
//!    `aio_backend::conformance!(mine, || Mine::new());`, makes a test of every promise, and a random walk.
//! 4. [`Registrations`] is a ready-made table of what is watched; the epoll and ppoll backends use it.
//! 5. Hand it to the loop, as a `Box<dyn Backend>`.
//!
//! This toy believes that everybody is ready for whatever they wait for, as regular files are, so that it never has to
//! ask the system. All the rest is as it has to be:
//!
//! ```
//! use std::{io, rc::Rc, thread, time::Duration};
//! use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};
//!
//! /// In the order of their turns.
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
//!         self.0.push((fd, token, interest)); // the share keeps the descriptor open
//!         Ok(())
//!     }
//!     fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
//!         let place = self.find(token)?;
//!         self.0[place].2 = interest;
//!         Ok(())
//!     }
//!     fn remove(&mut self, token: Token) -> io::Result<()> {
//!         let place = self.find(token)?;
//!         self.0.remove(place); // and lets the share go
//!         Ok(())
//!     }
//!     fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
//!         if self.0.iter().all(|(_, _, interest)| *interest == Interest::NONE) {
//!             // Nobody is to be heard: nothing can end this but time.
//!             timeout.map_or_else(thread::park, thread::sleep);
//!         }
//!         for _ in 0..self.0.len() {
//!             let (_, token, interest) = self.0[0];
//!             let readiness = interest.mask() & (Readiness::IN | Readiness::OUT);
//!             if !readiness.is_empty() && !ready.push(token, readiness) {
//!                 break; // the list is full, and the next wait begins here
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
//! `examples/third-party-backend` is a real one, in a workspace of its own, with a list of what goes wrong most often.
//!
//! # What it does not do
//! It knows nothing of handlers, contexts or clocks, and makes no system call (the conformance kit, which is a test
//! tool behind a feature, does).

#![forbid(unsafe_code)]

mod backend;
#[cfg(feature = "conformance")]
pub mod conformance;
mod interest;
mod ready;
mod registrations;
mod remedy;
mod token;
mod watched;

pub use backend::{Backend, Peek};
pub use interest::{Interest, Readiness};
pub use ready::ReadyList;
pub use registrations::{Entry, Registrations};
pub use remedy::{concerns_all, remedy};
pub use token::Token;
pub use watched::Watched;
