//! The set in the kernel, and a pollable descriptor for it.
//!
//! It does not record the members of the set; the entries do.

use std::io::{Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aio_backend::{Interest, Token, Watched};
use rustix::io::Errno;

use crate::sys::Sys;

/// Logs that a number was closed, or that it means another file by now. The kernel has removed the entry,
/// unless another descriptor shares the file; only an event can show which is the case.
#[cold]
fn log_closed(fd: &Watched, error: &Error) {
    tracing::debug!(?fd, %error, "a watched descriptor was closed before it was removed");
}

pub(crate) fn is(error: &Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

/// An epoll set. Functions that make one system call are inlined by force: see `wait.rs`.
#[derive(Debug)]
pub(crate) struct Set<S> {
    sys: S,
    inner: OwnedFd,
    /// A set with `inner` as its only member. Foreign loops watch this one, so `inner` can be replaced without a change to them.
    outer: Option<OwnedFd>,
}

impl<S: Sys> Set<S> {
    /// Makes an empty set.
    pub(crate) fn new(sys: S) -> Result<Self> {
        Ok(Self {
            inner: sys.create()?,
            outer: None,
            sys,
        })
    }

    /// Returns the system and the descriptor to wait on.
    #[inline]
    pub(crate) fn inner(&self) -> (&S, BorrowedFd<'_>) {
        (&self.sys, self.inner.as_fd())
    }

    /// Adds a descriptor that is not in the set.
    #[inline(always)]
    pub(crate) fn add(&self, fd: &Watched, token: Token, interest: Interest) -> Result<()> {
        match self
            .sys
            .add(self.inner.as_fd(), fd.as_fd(), token.to_bits(), interest)
        {
            // No registration has this number, so the entry is left over: the number was closed while another
            // descriptor shared its file, and now means the same file again. The new registration reuses the
            // entry.
            Err(error) if is(&error, Errno::EXIST) => self.modify(fd, token, interest),
            other => other,
        }
    }

    /// Changes a descriptor's token and interest.
    #[inline(always)]
    pub(crate) fn modify(&self, fd: &Watched, token: Token, interest: Interest) -> Result<()> {
        self.sys
            .modify(self.inner.as_fd(), fd.as_fd(), token.to_bits(), interest)
    }

    /// Removes a descriptor. Returns `false` if it may still be in the set.
    #[inline(always)]
    pub(crate) fn forget(&self, fd: &Watched) -> bool {
        let deleted = self.sys.delete(self.inner.as_fd(), fd.as_fd());
        deleted.map_err(|error| log_closed(fd, &error)).is_ok()
    }

    /// Replaces the set by an empty one. The pollable descriptor stays the same.
    pub(crate) fn renew(&mut self) -> Result<()> {
        let inner = self.sys.create()?;
        if let Some(outer) = &self.outer {
            self.sys.add(outer.as_fd(), inner.as_fd(), 0, Interest::READ)?;
            // Closing the set removes it, too, unless a forked child shares it.
            let _ = self.sys.delete(outer.as_fd(), self.inner.as_fd());
        }
        self.inner = inner;
        Ok(())
    }

    /// Returns the pollable descriptor for the set. The first call makes it.
    pub(crate) fn pollable(&mut self) -> Result<BorrowedFd<'_>> {
        let outer = match self.outer.take() {
            Some(outer) => outer,
            None => {
                let outer = self.sys.create()?;
                self.sys
                    .add(outer.as_fd(), self.inner.as_fd(), 0, Interest::READ)?;
                outer
            }
        };
        let outer: &OwnedFd = self.outer.insert(outer);
        Ok(outer.as_fd())
    }
}
