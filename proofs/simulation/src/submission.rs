//! [`Submission`]: an operation of the simulated user.

use std::cell::{Cell, RefCell};

use aio_context::Submitted;

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The kernel has not seen it.
    Queued,
    /// The kernel uses its buffers.
    InKernel,
    /// The kernel is done with it.
    Ended,
    /// The backend has given it back.
    Returned,
}

/// An operation as the user and the kernel know it.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: u64,
    pub(crate) stage: Cell<Stage>,
    /// How it ends; an error by its number.
    pub(crate) result: Cell<Result<usize, i32>>,
    /// The kernel can end it when it is cancelled.
    pub(crate) can_be_cancelled: Cell<bool>,
    /// It ends only if it is cancelled.
    pub(crate) hangs: Cell<bool>,
    /// Its handle was dropped, so its callback must not be called.
    pub(crate) is_abandoned: Cell<bool>,
    pub(crate) is_cancelled: Cell<bool>,
    /// The iteration in which it ended.
    pub(crate) ended_in: Cell<u64>,
    pub(crate) handle: RefCell<Option<Submitted>>,
}
