//! The words every layer of the event loop shares, and the contract of the layer that waits.
//!
//! If you are writing a backend, depend only on this crate.
//!
//! # How to write a backend
//! Implement [`Backend`], then have the conformance kit test it: with the feature `conformance`, one line
//! (`aio_backend::conformance!(mine, || Mine::new());`) in a file under `tests/` makes a test of every promise. This toy
//! knows only descriptors that are always ready, so it never has to ask the system:
//!
//! ```
//! use std::{io, time::Duration};
//! use aio_backend::{Backend, Interest, Readiness, ReadyList, Token, Watched};
//!
//! #[derive(Debug, Default)]
//! struct Eager(Vec<(Watched, Token, Interest)>);
//!
//! impl Eager {
//!     fn find(&mut self, token: Token) -> io::Result<usize> {
//!         self.0.iter().position(|(_, known, _)| *known == token).ok_or(io::ErrorKind::NotFound.into())
//!     }
//! }
//!
//! impl Backend for Eager {
//!     fn name(&self) -> &'static str {
//!         "eager"
//!     }
//!     fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
//!         self.0.push((fd, token, interest)); // the share keeps the descriptor open
//!         Ok(())
//!     }
//!     fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
//!         let at = self.find(token)?;
//!         self.0[at].2 = interest;
//!         Ok(())
//!     }
//!     fn remove(&mut self, token: Token) -> io::Result<()> {
//!         let at = self.find(token)?;
//!         self.0.swap_remove(at); // and lets it go
//!         Ok(())
//!     }
//!     fn wait(&mut self, _: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
//!         for (_, token, _) in self.0.iter().filter(|(_, _, interest)| *interest != Interest::NONE) {
//!             ready.push(*token, Readiness::IN); // says no when the list is full
//!         }
//!         let told = ready.len().min(self.0.len());
//!         self.0.rotate_left(told); // so that nobody starves
//!         Ok(())
//!     }
//!     fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
//!         self.0.drain(..).for_each(|(fd, token, interest)| each(fd, token, interest));
//!     }
//! }
//!
//! let mut backend = Eager::default();
//! let file = std::fs::File::open(std::env::current_exe()?)?;
//! backend.add(std::rc::Rc::new(file).into(), Token::new(0, 0), Interest::READ)?;
//! let mut ready = ReadyList::new();
//! backend.wait(None, &mut ready)?;
//! assert_eq!(ready.len(), 1);
//! # Ok::<(), io::Error>(())
//! ```
//!
//! `examples/third-party-backend` is a real one, in a workspace of its own.
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
mod token;
mod watched;

pub use backend::{Backend, Peek};
pub use interest::{Interest, Readiness};
pub use ready::ReadyList;
pub use token::Token;
pub use watched::Watched;
