//! [`DiskError`]: the error of a failed request to a disk. [`ResizeError`]: the error of a failed change of
//! its size.

use std::io;

use crate::buffers::Unmapped;

/// The error of a request to a disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The range exceeds the disk.
    #[error("bytes {at} to {at} + {len} are not on a disk of {size} bytes")]
    Outside {
        /// The first byte.
        at: u64,
        /// The number of bytes.
        len: u64,
        /// The size of the disk in bytes.
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

/// The reason for which a disk keeps its size.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResizeError {
    /// The contents beyond the new end would be lost.
    #[error(
        "the disk has {from} bytes, and the {} at its end would be lost; add --shrink if the guest no longer uses them",
        from - to
    )]
    Shrinks {
        /// The present size in bytes.
        from: u64,
        /// The wanted size in bytes.
        to: u64,
    },
    /// The size is less than a block, or not a multiple of one.
    #[error("{0} bytes are not a size: this disk has a positive multiple of {1} bytes")]
    NoSize(u64, u64),
    /// The daemon cannot set the size of a block device.
    #[error(
        "the image is a block device of {0} bytes; resize the device itself, then name `auto` as the size"
    )]
    Device(u64),
    /// Only an image has a size that can be adopted.
    #[error("only an image has a size to read anew; name the new size")]
    NoImage,
    /// The disk is read-only.
    #[error("the export is read-only, and its image keeps its size; `auto` as the size reads the size anew")]
    ReadOnly,
    /// The reserved addresses are exhausted.
    #[error("this disk in memory cannot grow beyond {0} bytes; add another export")]
    NoRoom(u64),
    /// The system has refused the change.
    #[error("the system refuses: {0}")]
    System(io::Error),
}

impl From<io::Error> for ResizeError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
