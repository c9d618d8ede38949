//! [`DiskError`]: why a request to a disk failed.

use std::io;

use crate::buffers::Unmapped;

/// Why a request to a disk failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The range exceeds the disk.
    #[error("bytes {at} to {at} + {len} are not on a disk of {size} bytes")]
    Outside {
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
        /// Size of the disk in bytes.
        size: u64,
    },
    /// The disk is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The request's buffer is not in shared memory.
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    /// A flush failed before, and some data may be lost.
    #[error("a flush of the image file failed before; check the image, then restart the daemon")]
    FlushFailed,
    /// Data to be read are not in memory, and the caller does not wait for them.
    #[error("the data are not in memory")]
    WouldWait,
    /// The file returned an error.
    #[error("the image file: {0}")]
    File(#[from] io::Error),
}
