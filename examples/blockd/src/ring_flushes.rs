//! [`RingFlushes`]: which flushes of an export wait for the ring.

use std::cell::{Cell, RefCell};
use std::fmt;

use crate::disk::DiskError;

/// What has become of a flush.
#[derive(Debug)]
pub(crate) enum Flushed {
    /// It is over.
    Ended(Result<(), DiskError>),
    /// A thread has to flush: the ring cannot, or another loop does at the moment.
    Threads,
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
