//! [`Port`]: a descriptor with a handler of the simulated user. The calls are in `handler`.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use aio_context::Interest;

use crate::target::FileId;

/// The state of a handler, and its pending work.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) id: u32,
    pub(crate) number: usize,
    pub(crate) fd: Rc<OwnedFd>,
    pub(crate) file: FileId,
    pub(crate) interest: Cell<Interest>,
    /// The event of an interest in one event was delivered, and the interest was not set again (rule R14).
    pub(crate) asleep: Cell<bool>,
    pub(crate) group: usize,
    pub(crate) polled: bool,
    pub(crate) exclusive: bool,
    /// `true` if it is registered, by the user's operations.
    pub(crate) live: Cell<bool>,
    /// The number was closed while it was watched, so no further event is due.
    pub(crate) doomed: Cell<bool>,
    pub(crate) begun: Cell<bool>,
    /// Work in memory, for polled ports.
    pub(crate) work: Cell<u32>,
    /// The number of its callbacks on the stack.
    pub(crate) running: Cell<u32>,
    pub(crate) in_vain: Cell<u32>,
    /// The iteration since which a call is due.
    pub(crate) owed_since: Cell<Option<u64>>,
}
