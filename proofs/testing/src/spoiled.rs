//! Backends that fail, lie or take their time: something in front of a real one.

use std::fmt;
use std::io;
use std::time::Duration;

use aio_backend::{Backend, Completed, Interest, NotSubmitted, Operation, ReadyList, Token, Watched};

/// What is done before the calls of a backend; an error takes the place of the call.
pub trait Spoil: fmt::Debug + 'static {
    /// The name of the backend.
    const NAME: &'static str;

    /// Before [`Backend::add`].
    ///
    /// # Errors
    /// That of the call.
    fn add(&mut self, _: Token) -> io::Result<()> {
        Ok(())
    }
    /// Before [`Backend::modify`].
    ///
    /// # Errors
    /// That of the call.
    fn modify(&mut self, _: Token) -> io::Result<()> {
        Ok(())
    }
    /// Before [`Backend::wait`], whose timeout it may change.
    ///
    /// # Errors
    /// That of the call.
    fn wait(&mut self, _: &mut Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
        Ok(())
    }
}

/// A backend with something in front of it. It executes operations, and offers no descriptor to a foreign loop.
#[derive(Debug)]
pub struct Spoiled<B, S>(pub B, pub S);

impl<B: Backend, S: Spoil> Backend for Spoiled<B, S> {
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
    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.0.remove(token)
    }
    fn wait(&mut self, mut timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        self.1.wait(&mut timeout, ready)?;
        self.0.wait(timeout, ready)
    }
    fn reports_edges(&self) -> bool {
        self.0.reports_edges()
    }
    fn submit(&mut self, report: Token, operation: Operation) -> Result<Token, NotSubmitted> {
        self.0.submit(report, operation)
    }
    fn cancel(&mut self, operation: Token) {
        self.0.cancel(operation);
    }
    fn next_completed(&mut self) -> Option<(Token, Completed)> {
        self.0.next_completed()
    }
    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }
    fn end_operations(&mut self) {
        self.0.end_operations();
    }
    fn watched(&self) -> usize {
        self.0.watched()
    }
    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.0.visit(each);
    }
    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.0.drain(each);
    }
}
