//! [`RingFile`]: the file of a transfer on the ring.

use std::fmt;

use aio_context::SharedFd;
use parking_lot::{ArcRwLockReadGuard, RawRwLock};

/// The file of a transfer on the ring.
#[derive(Debug)]
pub(crate) struct RingFile {
    pub(crate) file: SharedFd,
    /// Keeps writes through the page cache away from one past it, until it has ended.
    pub(crate) shared: Option<SharedWrites>,
}

/// The right to write past the page cache, which a write through it does not share.
pub(crate) struct SharedWrites {
    _guard: ArcRwLockReadGuard<RawRwLock, ()>,
}

impl SharedWrites {
    pub(super) fn new(guard: ArcRwLockReadGuard<RawRwLock, ()>) -> Self {
        Self { _guard: guard }
    }
}

impl fmt::Debug for SharedWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedWrites")
    }
}
