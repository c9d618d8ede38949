//! [`Bystander`]: a handler that only makes the set larger.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use aio_context::Handler;

/// One of 64 handlers that are never ready.
pub(crate) struct Bystander(pub(crate) Rc<OwnedFd>);

impl AsFd for Bystander {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Handler for Bystander {}
