//! A [`Backend`] on `ppoll(2)`: one array for the kernel, kept up to date as registrations come and go.
//!
//! It suits few descriptors. There is nothing to set up in the kernel: `add` and `modify` only check that the number is open, and
//! `remove` makes no system call. A timeout is precise to the nanosecond. The cost of a wait grows with the number of descriptors;
//! beyond some dozens, an epoll set is cheaper.
//!
//! ```
//! use std::io::Write;
//! use std::rc::Rc;
//! use aio_backend::{Backend, Interest, ReadyList, Readiness, Token};
//! use aio_backend_ppoll::Ppoll;
//!
//! let (reader, mut writer) = std::io::pipe()?;
//! let mut backend = Ppoll::new();
//! backend.add(Rc::new(reader).into(), Token::new(0, 0), Interest::READ)?;
//!
//! writer.write_all(b"x")?;
//! let mut ready = ReadyList::new();
//! backend.wait(None, &mut ready)?;
//! assert_eq!(ready.iter().next(), Some((Token::new(0, 0), Readiness::IN)));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What it does not do
//! It has no descriptor of its own, so [`Backend::make_pollable`] returns `None`. It depends on no other
//! backend.
//!
//! A number that is closed without `remove` stays registered: the next wait reports it as
//! [`Readiness::NVAL`](aio_backend::Readiness::NVAL).

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod array;
pub mod sys;
mod timeout;

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use aio_backend::{Backend, Interest, ReadyList, Token, Watched};
use rustix::io::Errno;

use crate::array::Array;
use crate::sys::{Kernel, Sys};

/// Waits with `ppoll(2)`.
///
/// # Examples
/// ```
/// use std::io::Write;
/// use std::rc::Rc;
/// use std::time::Duration;
/// use aio_backend::{Backend, Interest, Readiness, ReadyList, Token};
/// use aio_backend_ppoll::Ppoll;
///
/// let (reader, mut writer) = std::io::pipe()?;
/// let token = Token::new(0, 0);
/// let (mut backend, mut ready) = (Ppoll::new(), ReadyList::new());
/// backend.add(Rc::new(reader).into(), token, Interest::NONE)?;
/// writer.write_all(b"x")?;
/// backend.wait(Some(Duration::from_micros(50)), &mut ready)?;
/// assert!(ready.is_empty());
/// backend.modify(token, Interest::READ)?;
/// backend.wait(None, &mut ready)?;
/// assert_eq!(ready.iter().next(), Some((token, Readiness::IN)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[doc(alias = "poll")]
pub struct Ppoll<S = Kernel> {
    array: Array,
    sys: S,
}

impl Ppoll {
    /// Makes a backend without registrations. It opens no descriptor and cannot fail.
    #[must_use]
    pub fn new() -> Self {
        Self::with_sys(Kernel)
    }
}

impl Default for Ppoll {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Sys> Ppoll<S> {
    /// As [`new`](Ppoll::new), on another kernel.
    #[must_use]
    pub fn with_sys(sys: S) -> Self {
        Self {
            array: Array::default(),
            sys,
        }
    }
}

impl<S: Sys> Backend for Ppoll<S> {
    fn name(&self) -> &'static str {
        "ppoll"
    }

    /// Makes one system call to check that the number is open; `ppoll` itself would report that only later.
    fn add(&mut self, fd: Watched, token: Token, interest: Interest) -> io::Result<()> {
        if interest != Interest::NONE {
            self.sys.find(fd.as_fd())?;
        }
        if self.array.insert(fd, token, interest) {
            Ok(())
        } else {
            Err(io::ErrorKind::AlreadyExists.into())
        }
    }

    /// Makes one system call as [`add`](Self::add) does, except for [`Interest::NONE`].
    fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        if interest != Interest::NONE
            && let Some(fd) = self.array.get(token)
        {
            self.sys.find(fd.as_fd())?;
        }
        if self.array.set_interest(token, interest) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn remove(&mut self, token: Token) -> io::Result<()> {
        match self.array.remove(token) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyList) -> io::Result<()> {
        if ready.is_full() {
            // If the list is full, the caller must handle its events first.
            return Ok(());
        }
        match self.sys.ppoll(&mut self.array.polled(S::SIMULATED), timeout) {
            Ok(found) => self.array.collect(found, S::SIMULATED, ready),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn watched(&self) -> usize {
        self.array.len()
    }

    fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        self.array.visit(each);
    }

    fn drain(&mut self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        self.array.drain(each);
    }
}
