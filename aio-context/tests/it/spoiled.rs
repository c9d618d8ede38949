//! Backends that fail, lie or take their time: something in front of a real one.

use std::fmt;
use std::io;
use std::time::Duration;

use aio_context::{Backend, Interest, ReadyList, Token, Watched};

/// What is done before the calls of a backend; an error takes the place of the call.
pub(crate) trait Spoil: fmt::Debug + 'static {
    const NAME: &'static str;

    fn add(&mut self, _: Token) -> io::Result<()> {
        Ok(())
    }
    fn modify(&mut self, _: Token) -> io::Result<()> {
        Ok(())
    }
    fn wait(&mut self, _: &mut Option<Duration>, _: &mut ReadyList) -> io::Result<()> {
        Ok(())
    }
}

/// A backend with something in front of it.
#[derive(Debug)]
pub(crate) struct Spoiled<B, S>(pub(crate) B, pub(crate) S);

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
