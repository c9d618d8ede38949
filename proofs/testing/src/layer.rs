//! Backends around another one, which pass on all calls that they do not change.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use aio_backend::{Backend, Completed, Interest, NotSubmitted, Operation, Peek, ReadyList, Token, Watched};

/// A [`Backend`] around another one. It has the functions of the trait, and each passes its call on unless it
/// is overridden.
///
/// [`Layered`] makes a backend of it.
pub trait Layer: fmt::Debug + 'static {
    /// The backend inside.
    type Inner: Backend + ?Sized;

    /// Returns the backend inside.
    fn inner(&self) -> &Self::Inner;

    /// Returns the backend inside.
    fn inner_mut(&mut self) -> &mut Self::Inner;

    /// See [`Backend::name`].
    fn name(&self) -> &'static str {
        self.inner().name()
    }

    /// See [`Backend::add`].
    ///
    /// # Errors
    /// The error of the backend.
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.inner_mut().add(fd, token, interest)
    }

    /// See [`Backend::modify`].
    ///
    /// # Errors
    /// The error of the backend.
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.inner_mut().modify(token, interest)
    }

    /// See [`Backend::remove`].
    ///
    /// # Errors
    /// The error of the backend.
    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.inner_mut().remove(token)
    }

    /// See [`Backend::wait`].
    ///
    /// # Errors
    /// The error of the backend.
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        self.inner_mut().wait(timeout, ready)
    }

    /// See [`Backend::peek`]. It is unsupported unless this is overridden, because its events do not pass
    /// through [`wait`](Self::wait).
    ///
    /// # Errors
    /// The error of the backend.
    fn peek(&mut self, _: &mut ReadyList) -> io::Result<Peek> {
        Ok(Peek::Unsupported)
    }

    /// See [`Backend::rebalance`].
    fn rebalance(&mut self) {
        self.inner_mut().rebalance();
    }

    /// See [`Backend::make_pollable`].
    ///
    /// # Errors
    /// The error of the backend.
    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        self.inner_mut().make_pollable()
    }

    /// See [`Backend::make_operations_pollable`].
    ///
    /// # Errors
    /// The error of the backend.
    fn make_operations_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        self.inner_mut().make_operations_pollable()
    }

    /// See [`Backend::always_ready`].
    fn always_ready(&self) -> bool {
        self.inner().always_ready()
    }
}

/// The backend that a [`Layer`] makes. Calls that a layer cannot override are always passed on.
#[derive(Debug)]
pub struct Layered<L>(pub L);

impl<L: Layer> Backend for Layered<L> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.0.add(fd, token, interest)
    }
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.0.modify(token, interest)
    }
    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.0.remove(token)
    }
    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        self.0.wait(timeout, ready)
    }
    fn peek(&mut self, ready: &mut ReadyList) -> io::Result<Peek> {
        self.0.peek(ready)
    }
    fn rebalance(&mut self) {
        self.0.rebalance();
    }
    fn reports_edges(&self) -> bool {
        self.0.inner().reports_edges()
    }
    fn make_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        self.0.make_pollable()
    }
    fn make_operations_pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        self.0.make_operations_pollable()
    }
    fn always_ready(&self) -> bool {
        self.0.always_ready()
    }
    fn submit(&mut self, report: Token, operation: Operation) -> Result<Token, NotSubmitted> {
        self.0.inner_mut().submit(report, operation)
    }
    fn cancel(&mut self, operation: Token) {
        self.0.inner_mut().cancel(operation);
    }
    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        self.0.inner_mut().next_completed()
    }
    fn in_flight(&self) -> usize {
        self.0.inner().in_flight()
    }
    fn end_operations(&mut self) {
        self.0.inner_mut().end_operations();
    }
    fn watched(&self) -> usize {
        self.0.inner().watched()
    }
    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.0.inner().visit(each);
    }
    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.0.inner_mut().drain(each);
    }
}
