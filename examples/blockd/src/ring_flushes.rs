//! [`RingFlushes`]: which flushes of an export wait for the ring, and [`Flushes`]: what follows a flush.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::disk::{DiskError, RingProgress};

/// What has become of a flush.
#[derive(Debug)]
pub(crate) enum Flushed {
    /// It is over.
    Ended(Result<(), DiskError>),
    /// A thread has to flush: the ring cannot, or another loop does at the moment.
    Threads,
}

/// A request that the ring executes, whose steps can be flushes.
pub(crate) trait Flushes {
    /// How far it is.
    fn progress(&self) -> &Cell<RingProgress>;

    /// Does the next step.
    fn advance(self: &Rc<Self>);

    /// Ends with an error.
    fn fail(self: &Rc<Self>, error: DiskError);

    /// Passes the request to a thread, which begins it anew.
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

/// The flushes of an export: one at a time, and those that are asked for meanwhile.
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
