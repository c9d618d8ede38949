//! An aio backend on ppoll.
//!
//! The right one for few descriptors: one system call, nothing to keep in step with the kernel, nanosecond timeouts. Its cost
//! grows with every watched descriptor (about 25 ns each), so from some dozens on epoll is cheaper;
//! `aio-backend-ladder` changes over.
//!
//! # What it does not do
//! It opens no descriptor of its own and so has none to offer to a foreign loop. It knows no handlers and no clocks.
#![deny(unsafe_code)]

mod array;
mod timeout;

use std::io;
use std::time::Duration;

use aio_backend::{Backend, Interest, ReadyList, Token, Watched};
use rustix::io::Errno;

use crate::array::Array;

/// A backend on ppoll: see the [crate's page](crate).
#[derive(Debug, Default)]
pub struct Ppoll {
    array: Array,
}

impl Ppoll {
    /// A backend that watches nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Backend for Ppoll {
    fn name(&self) -> &'static str {
        "ppoll"
    }

    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        self.array.insert(fd, token, interest);
        Ok(())
    }

    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        if self.array.set_interest(token, interest) {
            Ok(())
        } else {
            Err(unknown())
        }
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        let share = self.array.remove(token).ok_or_else(unknown)?;
        drop(share);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        let timeout = timeout.map(timeout::timespec);
        match rustix::event::poll(self.array.polled(), timeout.as_ref()) {
            Ok(count) => self.array.report(count, ready),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        std::mem::take(&mut self.array).into_each(each);
    }
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "this token is not watched")
}
