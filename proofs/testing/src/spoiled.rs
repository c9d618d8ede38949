//! Backends that fail, report wrong events or take their time: code that runs before the calls of a real one.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use aio_backend::{Backend, Interest, ReadyList, Token, Watched};

use crate::{Layer, Layered};

/// The code that runs before the calls of a backend. If it returns an error, that replaces the call.
pub trait Spoil: fmt::Debug + 'static {
    /// The name of the backend.
    const NAME: &'static str;

    /// Runs before [`Backend::add`].
    ///
    /// # Errors
    /// The error of the call.
    fn add(&mut self, _: Token) -> io::Result<()> {
        Ok(())
    }
    /// Runs before [`Backend::modify`].
    ///
    /// # Errors
    /// The error of the call.
    fn modify(&mut self, _: Token) -> io::Result<()> {
        Ok(())
    }
    /// Runs before [`Backend::wait`], and may change its timeout.
    ///
    /// # Errors
    /// The error of the call.
    fn wait(&mut self, _: &mut Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
        Ok(())
    }
}

/// A backend with a [`Spoil`] before its calls. It executes operations, and offers no descriptor to a foreign
/// loop.
pub type Spoiled<B, S> = Layered<Spoiling<B, S>>;

/// Puts `spoil` before the calls of `backend`.
pub fn spoiled<B: Backend + 'static, S: Spoil>(backend: B, spoil: S) -> Spoiled<B, S> {
    Layered(Spoiling(backend, spoil))
}

/// See [`Spoiled`].
#[derive(Debug)]
pub struct Spoiling<B, S>(B, S);

impl<B: Backend + 'static, S: Spoil> Layer for Spoiling<B, S> {
    type Inner = B;

    fn inner(&self) -> &B {
        &self.0
    }
    fn inner_mut(&mut self) -> &mut B {
        &mut self.0
    }
    fn name(&self) -> &'static str {
        S::NAME
    }
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.1.add(token)?;
        self.0.add(fd, token, interest)
    }
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.1.modify(token)?;
        self.0.modify(token, interest)
    }
    fn wait(&mut self, mut timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        self.1.wait(&mut timeout, ready)?;
        self.0.wait(timeout, ready)
    }
    fn rebalance(&mut self) {}
    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(None)
    }
    fn make_operations_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(None)
    }
    fn always_ready(&self) -> bool {
        false
    }
}
