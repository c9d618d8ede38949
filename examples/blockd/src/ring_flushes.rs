//! [`RingFlushes`]: the flushes of an export that wait for the ring, and [`Flushes`]: the steps of a request
//! after a flush.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::disk::{DiskError, RingProgress};

/// The result of a flush.
#[derive(Debug)]
pub(crate) enum Flushed {
    /// The flush has ended.
    Ended(Result<(), DiskError>),
    /// A thread must flush: the ring cannot, or another loop is flushing.
    Threads,
}

/// A request that the ring executes. Its steps can be flushes.
pub(crate) trait Flushes {
    /// Returns the progress of the request.
    fn progress(&self) -> &Cell<RingProgress>;

    /// Executes the next step.
    fn advance(self: &Rc<Self>);

    /// Ends the request with an error.
    fn fail(self: &Rc<Self>, error: DiskError);

    /// Passes the request to a thread, which begins it again.
    fn leave(self: &Rc<Self>);

    /// Accepts the result of a flush.
    fn accept_flush(self: &Rc<Self>, flushed: Flushed) {
        match flushed {
            Flushed::Ended(Ok(())) => {
                let mut progress = self.progress().get();
                progress.is_flushed = true;
                self.progress().set(progress);
                self.advance();
            }
            Flushed::Ended(Err(error)) => self.fail(error),
            Flushed::Threads => self.leave(),
        }
    }
}

pub(crate) type FlushDone = Box<dyn FnOnce(Flushed)>;

/// The flushes of an export: one runs at a time, and the others wait.
#[derive(Default)]
pub(crate) struct RingFlushes {
    pub(crate) is_running: Cell<bool>,
    pub(crate) waiting: RefCell<Vec<FlushDone>>,
}

impl fmt::Debug for RingFlushes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingFlushes")
            .field("is_running", &self.is_running)
            .field("waiting", &self.waiting.borrow().len())
            .finish()
    }
}
