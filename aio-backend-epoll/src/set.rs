//! The set in the kernel, and the one descriptor that stands for it.
//!
//! It remembers nothing of what is in the set; that is the entries' business.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aio_backend::{Interest, Token, Watched};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, Result};

/// An epoll set.
#[derive(Debug)]
pub(crate) struct Set {
    inner: OwnedFd,
    /// A set of which `inner` is the only member. It is what foreign loops see, so that `inner` can be replaced without
    /// their knowing.
    outer: Option<OwnedFd>,
}

impl Set {
    /// An empty set.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            inner: create()?,
            outer: None,
        })
    }

    /// What to wait on.
    pub(crate) fn inner(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }

    /// Puts a descriptor in that is not in the set.
    pub(crate) fn add(&self, fd: &Watched, token: Token, interest: Interest) -> Result<()> {
        match epoll::add(&self.inner, fd, data(token), flags(interest)) {
            // Nobody watches this number, so the entry is a left-over: the number was closed while something else
            // shared its file, and has come to mean the same file again. It can as well be ours.
            Err(Errno::EXIST) => self.modify(fd, token, interest),
            other => other,
        }
    }

    /// Changes a descriptor's token and interest.
    pub(crate) fn modify(&self, fd: &Watched, token: Token, interest: Interest) -> Result<()> {
        epoll::modify(&self.inner, fd, data(token), flags(interest))
    }

    /// Takes a descriptor out.
    pub(crate) fn delete(&self, fd: &Watched) -> Result<()> {
        epoll::delete(&self.inner, fd)
    }

    /// Replaces the set by an empty one; what stands for it stays the same.
    pub(crate) fn renew(&mut self) -> Result<()> {
        let inner = create()?;
        if let Some(outer) = &self.outer {
            epoll::add(outer, &inner, EventData::new_u64(0), EventFlags::IN)?;
            // Closing it takes it out, too, unless a forked child shares it.
            let _ = epoll::delete(outer, &self.inner);
        }
        self.inner = inner;
        Ok(())
    }

    /// The descriptor that stands for the set, made when it is asked for first.
    pub(crate) fn pollable(&mut self) -> Result<BorrowedFd<'_>> {
        let outer = match self.outer.take() {
            Some(outer) => outer,
            None => {
                let outer = create()?;
                epoll::add(&outer, &self.inner, EventData::new_u64(0), EventFlags::IN)?;
                outer
            }
        };
        let outer: &OwnedFd = self.outer.insert(outer);
        Ok(outer.as_fd())
    }
}

fn create() -> Result<OwnedFd> {
    epoll::create(CreateFlags::CLOEXEC)
}

fn data(token: Token) -> EventData {
    EventData::new_u64(token.to_bits())
}

fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, interest.contains(Interest::READ));
    flags.set(EventFlags::OUT, interest.contains(Interest::WRITE));
    flags.set(EventFlags::ET, interest.contains(Interest::EDGE));
    flags
}
