//! The set in the kernel, and the one descriptor that stands for it.
//!
//! It remembers nothing of what is in the set; that is the entries' business.

use std::io::Result;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aio_backend::{Interest, Token, Watched};
use rustix::io::Errno;

use crate::sys::Sys;

/// The number is closed, or means another file by now. The kernel has forgotten the entry, unless something else shares the file;
/// nothing but its events can tell.
#[cold]
fn complain(fd: &Watched, error: &std::io::Error) {
    tracing::debug!(?fd, %error, "a watched descriptor was closed behind the loop's back");
}

/// An epoll set. What makes one system call is inlined by force: see `wait.rs`.
#[derive(Debug)]
pub(crate) struct Set<S> {
    sys: S,
    inner: OwnedFd,
    /// A set of which `inner` is the only member. It is what foreign loops see, so that `inner` can be replaced without
    /// their knowing.
    outer: Option<OwnedFd>,
}

impl<S: Sys> Set<S> {
    /// An empty set.
    pub(crate) fn new(sys: S) -> Result<Self> {
        Ok(Self {
            inner: sys.create()?,
            outer: None,
            sys,
        })
    }

    /// What to wait on, and whom to ask.
    #[inline]
    pub(crate) fn inner(&self) -> (&S, BorrowedFd<'_>) {
        (&self.sys, self.inner.as_fd())
    }

    /// Puts a descriptor in that is not in the set.
    #[inline(always)]
    pub(crate) fn add(&self, fd: &Watched, token: Token, interest: Interest) -> Result<()> {
        match self
            .sys
            .add(self.inner.as_fd(), fd.as_fd(), token.to_bits(), interest)
        {
            // Nobody watches this number, so the entry is a left-over: the number was closed while something else
            // shared its file, and has come to mean the same file again. It can as well be ours.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => {
                self.modify(fd, token, interest)
            }
            other => other,
        }
    }

    /// Changes a descriptor's token and interest.
    #[inline(always)]
    pub(crate) fn modify(&self, fd: &Watched, token: Token, interest: Interest) -> Result<()> {
        self.sys
            .modify(self.inner.as_fd(), fd.as_fd(), token.to_bits(), interest)
    }

    /// Takes a descriptor out; `false` if it may still be in the set.
    #[inline(always)]
    pub(crate) fn forget(&self, fd: &Watched) -> bool {
        let deleted = self.sys.delete(self.inner.as_fd(), fd.as_fd());
        deleted.map_err(|error| complain(fd, &error)).is_ok()
    }

    /// Replaces the set by an empty one; what stands for it stays the same.
    pub(crate) fn renew(&mut self) -> Result<()> {
        let inner = self.sys.create()?;
        if let Some(outer) = &self.outer {
            self.sys.add(outer.as_fd(), inner.as_fd(), 0, Interest::READ)?;
            // Closing it takes it out, too, unless a forked child shares it.
            let _ = self.sys.delete(outer.as_fd(), self.inner.as_fd());
        }
        self.inner = inner;
        Ok(())
    }

    /// The descriptor that stands for the set, made when it is asked for first.
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
