//! [`Port`]: a descriptor with a handler of the simulated user. The calls are in `handler`.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use aio_context::Interest;

use crate::target::FileId;

/// What is known about a handler, and what it is owed.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) id: u32,
    pub(crate) number: usize,
    pub(crate) fd: Rc<OwnedFd>,
    pub(crate) file: FileId,
    pub(crate) interest: Cell<Interest>,
    /// The only event of an interest in one was delivered, and the interest was not set again (rule R14).
    pub(crate) asleep: Cell<bool>,
    pub(crate) group: usize,
    pub(crate) polled: bool,
    pub(crate) exclusive: bool,
    /// Registered, as far as the user knows.
    pub(crate) live: Cell<bool>,
    /// Its number was closed while it was watched: no event is owed to it any more.
    pub(crate) doomed: Cell<bool>,
    pub(crate) begun: Cell<bool>,
    /// Work in memory, for polled ports.
    pub(crate) work: Cell<u32>,
    /// How often it is on the stack.
    pub(crate) running: Cell<u32>,
    pub(crate) in_vain: Cell<u32>,
    /// Since which iteration something is owed to it.
    pub(crate) owed_since: Cell<Option<u64>>,
}
