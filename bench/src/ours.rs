//! The same work on an aio context.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use aio_context::{
    BackendKind, Builder, Context, Handler, Interest, PollParams, PollPolicy, Pollable, Registration, Wait,
};
use aio_pollctl::Iteration;

use anyhow::ensure;

use crate::load::{Watches, drain};

/// A doorbell that counts its rings.
pub(crate) struct Bell {
    fd: Rc<OwnedFd>,
    count: Rc<Cell<u64>>,
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Bell {
    fn readable(&self, _: &Context) {
        drain(&self.fd);
        self.count.set(self.count.get() + 1);
    }
}

/// A context with doorbells.
pub(crate) struct Loop {
    pub(crate) cx: Context,
    pub(crate) bells: Vec<Rc<OwnedFd>>,
    pub(crate) count: Rc<Cell<u64>>,
    _registrations: Vec<Registration>,
}

impl Loop {
    pub(crate) fn new(bells: Vec<Rc<OwnedFd>>) -> anyhow::Result<Self> {
        Self::watching(Context::new()?, bells)
    }

    /// Returns a loop that has moved to epoll, for any number of doorbells.
    pub(crate) fn on_epoll(bells: Vec<Rc<OwnedFd>>) -> anyhow::Result<Self> {
        let ours = Self::new(bells)?;
        for _ in 0..1000 {
            ours.poll(Wait::NoBlock);
        }
        ensure!(ours.cx.backend_name() == "epoll", "it has not climbed");
        Ok(ours)
    }

    /// Returns a loop on io_uring.
    pub(crate) fn on_uring(bells: Vec<Rc<OwnedFd>>) -> anyhow::Result<Self> {
        Self::watching(on_uring(Context::builder())?, bells)
    }

    /// Runs one iteration. (A method, so that a closure that calls it captures the whole loop and not only
    /// its context.)
    #[inline]
    pub(crate) fn poll(&self, wait: Wait) {
        let _ = self.cx.poll(wait);
    }

    fn watching(cx: Context, bells: Vec<Rc<OwnedFd>>) -> anyhow::Result<Self> {
        let count = Rc::new(Cell::new(0));
        let watch = |fd: &Rc<OwnedFd>| {
            let bell = Bell {
                fd: fd.clone(),
                count: count.clone(),
            };
            cx.watch(Rc::new(bell), Interest::READ)
                .map_err(std::io::Error::from)
        };
        let registrations = bells.iter().map(watch).collect::<Result<_, _>>()?;
        Ok(Self {
            cx,
            bells,
            count,
            _registrations: registrations,
        })
    }
}

impl Watches for Loop {
    fn bells(&self) -> &[Rc<OwnedFd>] {
        &self.bells
    }

    fn count(&self) -> u64 {
        self.count.get()
    }

    #[inline(always)]
    fn iterate<const BLOCKS: bool>(&mut self) {
        self.poll(if BLOCKS { Wait::Block } else { Wait::NoBlock });
    }
}

/// Returns a context on io_uring, or an error with the reason why there is none.
pub(crate) fn on_uring(builder: Builder) -> anyhow::Result<Context> {
    let cx = builder.backend_kind(BackendKind::Uring).build()?;
    ensure!(cx.backend_name() == "uring", "io_uring is not available");
    Ok(cx)
}

/// Work in memory that a loop finds by polling.
pub(crate) struct Flag {
    pub(crate) raised: Cell<bool>,
    fd: Rc<OwnedFd>,
    count: Rc<Cell<u64>>,
}

impl Flag {
    pub(crate) fn new(fd: Rc<OwnedFd>, count: Rc<Cell<u64>>) -> Rc<Self> {
        Rc::new(Self {
            raised: Cell::new(false),
            fd,
            count,
        })
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Flag {
    fn readable(&self, _: &Context) {
        drain(&self.fd);
        self.raised.set(false);
        self.count.set(self.count.get() + 1);
    }
}

impl Pollable for Flag {
    #[inline]
    fn poll(&self) -> bool {
        self.raised.get()
    }

    fn poll_ready(&self, _: &Context) {
        self.raised.set(false);
        self.count.set(self.count.get() + 1);
    }
}

/// A policy that polls for as long as it may.
#[derive(Debug)]
pub(crate) struct Always;

impl PollPolicy for Always {
    fn name(&self) -> &'static str {
        "always"
    }
    fn budget(&self) -> Duration {
        Duration::MAX
    }
    fn observe(&mut self, _: Iteration) {}
    fn reset(&mut self, _: PollParams) {}
}

/// A handler that does nothing.
pub(crate) struct Silent(pub(crate) Rc<OwnedFd>);

impl AsFd for Silent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Handler for Silent {}
