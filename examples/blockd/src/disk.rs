//! What is behind an export: an image file, memory, or nothing at all.
//!
//! A disk reads and writes within its size and nowhere else; it knows nothing of queues. File access is synchronous: the
//! loop waits for it. Callers keep each transfer to [`STEP`] bytes. The range of a discard or write-zeroes may have terabytes;
//! it is cleared in steps that take about as long.

mod block_device;
mod clear;
mod format;
mod image;
mod lock;
mod ram;
mod sys;

use std::io;
use std::path::PathBuf;

use crate::chain::{Bytes, Unmapped};
pub(crate) use clear::Cleared;
use image::Image;
use ram::Ram;

/// How many bytes are moved, or how much other work is done, before others get their turn.
pub(crate) const STEP: u64 = 1024 * 1024;

/// Bytes of a sector: the unit in which virtio addresses a disk, whatever its block size.
pub(crate) const SECTOR: u64 = 512;

/// Where an export's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image file or a block device.
    File(PathBuf),
    /// Memory of so many bytes, zero at first, gone at the end.
    Ram(u64),
    /// So many bytes that take what is written and leave a reader's buffer as it is: to measure everything else.
    Null(u64),
}

/// Why a disk did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The range is not on the disk.
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
    /// The request's buffer does not exist.
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    /// A flush failed before, and some data may be lost.
    #[error("a flush of the image file failed before; it must be opened anew")]
    FlushFailed,
    /// The file said no.
    #[error("the image file: {0}")]
    File(#[from] io::Error),
}

#[derive(Debug)]
enum Medium {
    File(Image),
    Ram(Ram),
    Null,
}

/// How a disk is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Writing is refused.
    pub(crate) read_only: bool,
    /// An image is locked against other users.
    pub(crate) lock: bool,
    /// An image is raw, whatever its bytes look like.
    pub(crate) raw: bool,
    /// What is discarded is given back.
    pub(crate) discard: bool,
}

impl Access {
    /// The usual way.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn new(read_only: bool) -> Self {
        Self {
            read_only,
            lock: true,
            raw: false,
            discard: true,
        }
    }
}

/// A disk of whole sectors.
#[derive(Debug)]
pub(crate) struct Disk {
    medium: Medium,
    size: u64,
    access: Access,
}

impl Disk {
    /// Opens or makes it the usual way.
    ///
    /// # Errors
    /// As [`open_for`](Self::open_for).
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn open(source: &Source, read_only: bool) -> io::Result<Self> {
        Self::open_for(source, Access::new(read_only))
    }

    /// Opens or makes it.
    ///
    /// # Errors
    /// What the system says to opening the file or reserving the memory, or why the file cannot be served.
    pub(crate) fn open_for(source: &Source, access: Access) -> io::Result<Self> {
        let (medium, bytes) = match source {
            Source::File(path) => {
                let (image, bytes) = Image::open(path, access)?;
                (Medium::File(image), bytes)
            }
            Source::Ram(bytes) => (Medium::Ram(Ram::new(*bytes)?), *bytes),
            Source::Null(bytes) => (Medium::Null, *bytes),
        };
        Ok(Self {
            medium,
            size: bytes / SECTOR * SECTOR,
            access,
        })
    }

    /// Bytes, a multiple of [`SECTOR`].
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether writing is refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.access.read_only
    }

    /// Whether a request may take so long that earlier ones should not wait to be reported.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.medium, Medium::File(_))
    }

    /// Whether discards are offered: they give something back.
    pub(crate) fn can_discard(&self) -> bool {
        let may = self.access.discard && !self.access.read_only;
        may && match &self.medium {
            Medium::File(image) => image.can_discard(),
            Medium::Ram(_) | Medium::Null => true,
        }
    }

    /// Whether `len` bytes from `at` are on the disk.
    ///
    /// # Errors
    /// [`DiskError::Outside`] if not.
    pub(crate) fn check(&self, at: u64, len: u64) -> Result<(), DiskError> {
        match at.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(DiskError::Outside {
                at,
                len,
                size: self.size,
            }),
        }
    }

    fn check_write(&self, at: u64, len: u64) -> Result<(), DiskError> {
        if self.access.read_only {
            return Err(DiskError::ReadOnly);
        }
        self.check(at, len)
    }

    /// Fills `into` with what is on the disk from byte `at`.
    ///
    /// # Errors
    /// [`DiskError`]; a part may have been filled.
    pub(crate) fn read(&self, at: u64, into: Bytes<'_>) -> Result<(), DiskError> {
        self.check(at, into.len())?;
        match &self.medium {
            Medium::Ram(ram) => ram.read(at, into),
            Medium::File(image) => image.read(at, into),
            Medium::Null => Ok(()),
        }
    }

    /// Writes `from` to the disk from byte `at`.
    ///
    /// # Errors
    /// [`DiskError`]; a part may have been written, never outside the range.
    pub(crate) fn write(&self, at: u64, from: Bytes<'_>) -> Result<(), DiskError> {
        self.check_write(at, from.len())?;
        match &self.medium {
            Medium::Ram(ram) => ram.write(at, from),
            Medium::File(image) => image.write(at, from),
            Medium::Null => Ok(()),
        }
    }

    /// Makes what has been written survive a loss of power, where that means anything.
    ///
    /// # Errors
    /// What the file says; after one failure, [`DiskError::FlushFailed`] for ever.
    pub(crate) fn flush(&self) -> Result<(), DiskError> {
        match &self.medium {
            Medium::File(image) if !self.access.read_only => image.flush(),
            _ => Ok(()),
        }
    }

    /// Gives the beginning of the range back: its contents do not matter any more. A file that cannot do that keeps it.
    ///
    /// # Errors
    /// [`DiskError`] if the disk is read-only or smaller.
    pub(crate) fn discard(&self, at: u64, len: u64) -> Result<Cleared, DiskError> {
        self.check_write(at, len)?;
        match &self.medium {
            Medium::File(image) if self.access.discard => Ok(image.discard(at, len)),
            Medium::Ram(ram) if self.access.discard => Ok(ram.discard(at, len)),
            _ => Ok(Cleared::nothing(len)),
        }
    }

    /// Makes the beginning of the range read as zeroes; `unmap` allows to give it back besides.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn write_zeroes(&self, at: u64, len: u64, unmap: bool) -> Result<Cleared, DiskError> {
        self.check_write(at, len)?;
        let unmap = unmap && self.access.discard;
        match &self.medium {
            Medium::File(image) => Ok(image.write_zeroes(at, len, unmap)?),
            Medium::Ram(ram) => Ok(ram.write_zeroes(at, len, unmap)?),
            Medium::Null => Ok(Cleared::nothing(len)),
        }
    }
}

#[cfg(test)]
mod tests;
