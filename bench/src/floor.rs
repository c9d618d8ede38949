//! The floor: a hand-written loop on the bare system calls, with the same work in the callback.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::load::{Watches, drain};

/// A bare epoll loop: descriptors in an array, the index in the event.
pub(crate) struct Epoll {
    pub(crate) set: OwnedFd,
    pub(crate) fds: Vec<Rc<OwnedFd>>,
    events: Vec<Event>,
    pub(crate) count: u64,
}

impl Epoll {
    pub(crate) fn new(fds: Vec<Rc<OwnedFd>>, batch: usize) -> anyhow::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        for (index, fd) in fds.iter().enumerate() {
            epoll::add(&set, fd, EventData::new_u64(index as u64), EventFlags::IN)?;
        }
        Ok(Self {
            set,
            fds,
            events: Vec::with_capacity(batch),
            count: 0,
        })
    }

    /// Runs one iteration. Returns the number of served events.
    pub(crate) fn iterate(&mut self, block: bool) -> usize {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        self.events.clear();
        let timeout = if block { None } else { Some(&zero) };
        let _ = epoll::wait(&self.set, spare_capacity(&mut self.events), timeout);
        for event in &self.events {
            drain(&self.fds[event.data.u64() as usize]);
            self.count += 1;
        }
        self.events.len()
    }
}

impl Watches for Epoll {
    fn bells(&self) -> &[Rc<OwnedFd>] {
        &self.fds
    }

    fn count(&self) -> u64 {
        self.count
    }

    #[inline]
    fn iterate<const BLOCKS: bool>(&mut self) {
        Self::iterate(self, BLOCKS);
    }
}
