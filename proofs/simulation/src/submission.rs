//! [`Submission`]: an operation of the simulated user.

use std::cell::{Cell, RefCell};

use aio_context::Submitted;

/// The stage of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The kernel has not received it.
    Queued,
    /// The kernel uses its buffers.
    InKernel,
    /// The kernel has completed it.
    Ended,
    /// The backend has returned it.
    Returned,
}

/// An operation, with its state in the user and in the kernel.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: u64,
    pub(crate) stage: Cell<Stage>,
    /// Its result; an error by its number.
    pub(crate) result: Cell<Result<usize, i32>>,
    /// The kernel can cancel it.
    pub(crate) can_be_cancelled: Cell<bool>,
    /// It ends only after a cancellation.
    pub(crate) hangs: Cell<bool>,
    /// Its handle was dropped, so its callback must not be called.
    pub(crate) is_abandoned: Cell<bool>,
    pub(crate) is_cancelled: Cell<bool>,
    /// The iteration in which it ended.
    pub(crate) ended_in: Cell<u64>,
    pub(crate) handle: RefCell<Option<Submitted>>,
}
