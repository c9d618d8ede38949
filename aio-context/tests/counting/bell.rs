//! A descriptor that can be made ready, and that counts the times that it was served.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use aio_context::{Context, Handler, Pollable};
use rustix::event::{EventfdFlags, eventfd};

type OnReady = Box<dyn Fn(&Context)>;

/// An eventfd that [`ring`](Self::ring) makes readable; `work` is the result of its `poll`.
pub(crate) struct Bell {
    fd: OwnedFd,
    on_ready: Option<OnReady>,
    pub(crate) rung: Cell<bool>,
    pub(crate) work: Cell<bool>,
    /// Counts the events of all bells that share it.
    pub(crate) served: Rc<Cell<usize>>,
    pub(crate) invalidated: Cell<usize>,
}

impl Bell {
    pub(crate) fn new(served: &Rc<Cell<usize>>) -> Rc<Self> {
        Self::made(served, None)
    }

    /// Makes a bell that runs `code` when it is readable.
    pub(crate) fn with(served: &Rc<Cell<usize>>, code: impl Fn(&Context) + 'static) -> Rc<Self> {
        Self::made(served, Some(Box::new(code)))
    }

    fn made(served: &Rc<Cell<usize>>, on_ready: Option<OnReady>) -> Rc<Self> {
        Rc::new(Self {
            fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap(),
            on_ready,
            rung: Cell::new(false),
            work: Cell::new(false),
            served: served.clone(),
            invalidated: Cell::new(0),
        })
    }

    pub(crate) fn ring(&self) {
        if !self.rung.replace(true) {
            rustix::io::write(&self.fd, &1u64.to_ne_bytes()).unwrap();
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Bell {
    fn readable(&self, cx: &Context) {
        rustix::io::read(&self.fd, &mut [0u8; 8]).unwrap();
        assert!(self.rung.replace(false), "it was not rung");
        self.served.set(self.served.get() + 1);
        if let Some(code) = &self.on_ready {
            code(cx);
        }
    }

    fn invalidated(&self, _: &Context, _: io::Error) {
        self.invalidated.set(self.invalidated.get() + 1);
    }
}

impl Pollable for Bell {
    fn poll(&self) -> bool {
        self.work.get()
    }

    fn poll_ready(&self, _: &Context) {
        self.work.set(false);
        self.served.set(self.served.get() + 1);
    }
}
