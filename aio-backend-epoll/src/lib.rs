//! An aio backend on epoll: level-triggered, with nanosecond timeouts.
//!
//! Its cost grows with what is ready, not with what is watched.
//!
//! # Timeouts
//! "Now" and "for ever" are one `epoll_wait`. A finite timeout in whole milliseconds would be up to a millisecond late, so it
//! is a `ppoll` on the epoll descriptor, which takes nanoseconds, and then an `epoll_wait` of zero if there is something. The
//! second call is paid only by a wait that slept and was woken, which costs a hundred times as much; making every wait an
//! `epoll_pwait2` instead would make looking for nothing about 1.6 times as expensive.
//!
//! # What it does not do
//! It is not edge-triggered, does not know about other backends, handlers or clocks.
#![forbid(unsafe_code)]

mod set;
mod wait;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aio_backend::{Backend, Interest, ReadyList, Token, Watched};

use crate::set::Set;

/// A backend on epoll: see the [crate's page](crate).
#[derive(Debug)]
pub struct Epoll {
    set: Set,
    events: wait::Events,
}

impl Epoll {
    /// A backend that watches nothing.
    ///
    /// # Errors
    /// What the system says to one more epoll descriptor: `EMFILE` means that `ulimit -n` is too low.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            set: Set::new()?,
            events: wait::Events::default(),
        })
    }
}

impl Backend for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.set.add(fd, token, interest)
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        self.set.modify(token, interest)
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        self.set.remove(token)
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let timeout = if self.set.has_always_ready() {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        self.events.wait(&mut self.set, timeout, ready)
    }

    fn pollable(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        Ok(Some(self.set.fd().as_fd()))
    }

    fn always_ready(&self) -> bool {
        self.set.has_always_ready()
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.set.drain(each);
    }
}
