//! Fixtures of the tests: [`Kick`], a descriptor that can be made ready, and [`Number`], one that can be closed.

use std::cell::{Cell, RefCell};
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use aio_backend::conformance::disturb;
use aio_context::{Context, Handler, Interest, Pollable, Polled, Registration};
use rustix::event::{EventfdFlags, eventfd};

pub(crate) use crate::kinds::everywhere;
pub(crate) use aio_testing::{Bench, Count, is_readable};

type OnReady = Rc<dyn Fn(&Kick, &Context)>;

/// A descriptor that is readable after a kick, with a log of its callbacks.
pub(crate) struct Kick {
    fd: OwnedFd,
    pub(crate) count: Cell<u32>,
    pub(crate) on_ready: RefCell<Option<OnReady>>,
    /// The result of `poll`, if it is set; otherwise `poll` returns whether the handler was kicked.
    pub(crate) has_work: Cell<Option<bool>>,
    pub(crate) log: RefCell<Vec<&'static str>>,
    /// The number of calls of `poll`.
    pub(crate) polls: Cell<u32>,
}

impl Kick {
    pub(crate) fn new() -> Rc<Self> {
        let fd =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("there is a descriptor left");
        Rc::new(Self {
            fd,
            count: Cell::new(0),
            on_ready: RefCell::new(None),
            has_work: Cell::new(None),
            log: RefCell::default(),
            polls: Cell::new(0),
        })
    }

    /// Makes a kick that runs `code` when it is ready, after it was cleared.
    pub(crate) fn with(code: impl Fn(&Self, &Context) + 'static) -> Rc<Self> {
        let kick = Self::new();
        *kick.on_ready.borrow_mut() = Some(Rc::new(code));
        kick
    }

    pub(crate) fn kick(&self) {
        rustix::io::write(&self.fd, &1u64.to_ne_bytes()).expect("an eventfd can be written");
    }

    pub(crate) fn is_set(&self) -> bool {
        is_readable(&self.fd)
    }

    pub(crate) fn clear(&self) -> bool {
        rustix::io::read(&self.fd, &mut [0u8; 8]).is_ok()
    }

    pub(crate) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Returns a writer to the same counter for another thread.
    pub(crate) fn writer(&self) -> OwnedFd {
        self.fd.try_clone().expect("there is a descriptor left")
    }

    fn serve(&self, cx: &Context) {
        self.clear();
        self.count.set(self.count.get() + 1);
        let code = self.on_ready.borrow().clone();
        if let Some(code) = code {
            code(self, cx);
        }
    }
}

impl AsFd for Kick {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Kick {
    fn readable(&self, cx: &Context) {
        self.log.borrow_mut().push("readable");
        self.serve(cx);
    }
    fn invalidated(&self, _: &Context, _: io::Error) {
        self.log.borrow_mut().push("broken");
    }
}

impl Pollable for Kick {
    fn poll(&self) -> bool {
        self.polls.set(self.polls.get() + 1);
        self.has_work.get().unwrap_or_else(|| self.is_set())
    }
    fn poll_ready(&self, cx: &Context) {
        self.log.borrow_mut().push("poll_ready");
        self.serve(cx);
    }
    fn poll_begin(&self) {
        self.log.borrow_mut().push("begin");
    }
    fn poll_end(&self) {
        self.log.borrow_mut().push("end");
    }
}

/// A polled handler for the descriptor of the first, which behaves as the second.
pub(crate) struct Twin(pub(crate) Rc<Kick>, pub(crate) Rc<Kick>);

impl AsFd for Twin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Handler for Twin {}

impl Pollable for Twin {
    fn poll(&self) -> bool {
        self.1.poll()
    }
    fn poll_ready(&self, cx: &Context) {
        self.1.poll_ready(cx);
    }
    fn poll_begin(&self) {
        self.1.poll_begin();
    }
    fn poll_end(&self) {
        self.1.poll_end();
    }
}

pub(crate) fn watch(cx: &Context, kick: &Rc<Kick>) -> Registration {
    cx.watch(kick.clone(), Interest::READ).expect("it can be watched")
}

pub(crate) fn watch_polled(cx: &Context, kick: &Rc<Kick>) -> Registration {
    cx.watch(Polled(kick.clone()), Interest::READ)
        .expect("it can be watched")
}

/// A handler whose number can be closed without a removal.
pub(crate) struct Number {
    fd: Rc<disturb::Number>,
    writer: PipeWriter,
    /// The errors with which the handler was invalidated.
    pub(crate) errors: RefCell<Vec<String>>,
}

impl Number {
    pub(crate) fn new() -> Rc<Self> {
        let (reader, writer) = io::pipe().expect("there is a descriptor left");
        Rc::new(Self {
            fd: disturb::Number::of(reader),
            writer,
            errors: RefCell::default(),
        })
    }

    /// As [`new`](Self::new), but closed already.
    pub(crate) fn closed() -> Rc<Self> {
        let number = Self::new();
        number.close();
        number
    }

    /// Closes it, as `close(2)` from foreign code would.
    pub(crate) fn close(&self) {
        self.fd.close();
    }

    pub(crate) fn kick(&self) {
        (&self.writer).write_all(b"x").expect("the reader is there");
    }
}

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Number {
    fn readable(&self, _: &Context) {
        rustix::io::read(self, &mut [0; 1]).expect("it is readable");
    }
    fn invalidated(&self, _: &Context, why: io::Error) {
        self.errors.borrow_mut().push(why.to_string());
    }
}

/// Returns the number of open descriptors of this process.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("/proc is there")
        .count()
}
