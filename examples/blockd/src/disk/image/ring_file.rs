//! [`RingFile`]: the file of a transfer on the ring.

use std::fmt;

use aio_context::SharedFd;
use parking_lot::{ArcRwLockReadGuard, RawRwLock};

/// The file of a transfer on the ring.
#[derive(Debug)]
pub(crate) struct RingFile {
    pub(crate) file: SharedFd,
    /// Excludes writes through the page cache until the end of a write past it.
    pub(crate) shared: Option<SharedWrites>,
}

/// The right to write past the page cache. A write through the page cache does not share it.
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
