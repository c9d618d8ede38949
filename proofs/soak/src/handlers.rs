//! The registered handlers: bells, which are rung at home, and a queue that other threads fill and that the
//! loop may poll.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use aio_context::{Context, Handler, Pollable};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::tally::Tally;

fn bell() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

fn ring(fd: &OwnedFd) {
    // A full eventfd is rung, too.
    if let Err(error) = rustix::io::write(fd, &1u64.to_ne_bytes()) {
        assert_eq!(error, Errno::AGAIN, "an eventfd can be written to");
    }
}

/// Silences an eventfd. A call without cause finds nothing.
fn silence(fd: &OwnedFd) {
    if let Err(error) = rustix::io::read(fd, &mut [0u8; 8]) {
        assert_eq!(error, Errno::AGAIN, "an eventfd can be read from");
    }
}

/// A descriptor that can be made ready, and counts its calls.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: OwnedFd,
    served: Rc<Cell<u64>>,
}

impl Bell {
    pub(crate) fn new(served: &Rc<Cell<u64>>) -> io::Result<Rc<Self>> {
        let served = served.clone();
        Ok(Rc::new(Self { fd: bell()?, served }))
    }

    pub(crate) fn ring(&self) {
        ring(&self.fd);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handler for Bell {
    fn readable(&self, _: &Context) {
        silence(&self.fd);
        self.served.set(self.served.get() + 1);
    }
}

/// Work from other threads in memory. If the loop polls, they do not kick it.
#[derive(Debug)]
pub(crate) struct Queue {
    fd: OwnedFd,
    tally: Arc<Tally>,
    must_kick: AtomicBool,
}

impl Queue {
    /// Returns a queue, as a handler to register.
    pub(crate) fn handler(tally: &Arc<Tally>, served: &Rc<Cell<u64>>) -> io::Result<Rc<QueueHandler>> {
        let queue = Self {
            fd: bell()?,
            tally: tally.clone(),
            must_kick: AtomicBool::new(true),
        };
        Ok(Rc::new(QueueHandler {
            queue: Arc::new(queue),
            taken: Cell::new(0),
            served: served.clone(),
        }))
    }

    /// Adds one piece of work, and kicks if that is needed.
    pub(crate) fn put(&self) {
        self.tally.work.fetch_add(1, Ordering::Release);
        // Pairs with the fence in `poll_end`: either it reads the work, or this thread reads that a kick is
        // needed.
        fence(Ordering::SeqCst);
        if self.must_kick.load(Ordering::Relaxed) {
            ring(&self.fd);
        }
    }
}

/// The loop's side of a [`Queue`].
#[derive(Debug)]
pub(crate) struct QueueHandler {
    pub(crate) queue: Arc<Queue>,
    taken: Cell<u64>,
    served: Rc<Cell<u64>>,
}

impl QueueHandler {
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    fn take(&self) {
        self.taken.set(self.queue.tally.work.load(Ordering::Acquire));
        self.served.set(self.served.get() + 1);
    }
}

impl AsFd for QueueHandler {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.fd.as_fd()
    }
}

impl Handler for QueueHandler {
    fn readable(&self, _: &Context) {
        silence(&self.queue.fd);
        self.take();
    }
}

impl Pollable for QueueHandler {
    fn poll(&self) -> bool {
        self.queue.tally.work.load(Ordering::Acquire) != self.taken.get()
    }

    fn poll_ready(&self, _: &Context) {
        self.take();
    }

    fn poll_begin(&self) {
        self.queue.must_kick.store(false, Ordering::Relaxed);
    }

    fn poll_end(&self) {
        self.queue.must_kick.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}
