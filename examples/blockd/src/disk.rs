//! The disk of an export: an image file, memory, or a null disk.
//!
//! A disk reads and writes within its size. It does not depend on queues. File access is synchronous: the
//! calling thread waits for it. Callers limit each transfer to [`STEP`] bytes. The range of a discard or
//! write-zeroes can have terabytes, so it is cleared in steps of about the same duration.

mod access;
mod block_device;
mod clear;
mod cut;
mod error;
mod format;
mod image;
mod lock;
mod on_ring;
mod ram;
mod resize;
mod slices;
mod sys;
mod units;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffers::Bytes;
use crate::figures::ImageState;
pub(crate) use access::Access;
pub(crate) use clear::Cleared;
use cut::Cut;
pub(crate) use cut::has_shrunk;
pub(crate) use error::{DiskError, ResizeError};
use image::Image;
pub(crate) use image::{BUFFER_ALIGN, FlushStart, Flushing, RingFile, SharedWrites};
pub(crate) use on_ring::{Clear, Outcome, RingProgress, RingStep};
use ram::Ram;
pub(crate) use slices::Extent;
pub(crate) use units::{SECTOR, STEP};

/// The storage of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image file or a block device.
    File(PathBuf),
    /// Memory of this number of bytes, zero at first. Its contents are lost when the daemon ends.
    Ram(u64),
    /// A disk of this number of bytes that ignores writes and leaves read buffers unchanged, for measurements.
    Null(u64),
}

impl fmt::Display for Source {
    /// The disk in the form of `--export`, without the size, which can change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "path={}", path.display()),
            Self::Ram(_) => f.write_str("ram"),
            Self::Null(_) => f.write_str("null"),
        }
    }
}

#[derive(Debug)]
enum Medium {
    File(Image),
    Ram(Ram),
    Null,
}

/// A disk of whole sectors.
#[derive(Debug)]
pub(crate) struct Disk {
    medium: Medium,
    /// The size in bytes. Any thread may read it while it changes.
    size: AtomicU64,
    cut: Cut,
    access: Access,
}

impl Disk {
    /// Opens an image or makes another disk, with the default access.
    ///
    /// # Errors
    /// The errors of [`open_for`](Self::open_for).
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn open(source: &Source, read_only: bool) -> io::Result<Self> {
        Self::open_for(source, Access::new(read_only))
    }

    /// Opens an image or makes another disk.
    ///
    /// # Errors
    /// If the file cannot be opened or served, or the memory cannot be reserved.
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
            size: AtomicU64::new(bytes / access.block * access.block),
            cut: Cut::default(),
            access,
        })
    }

    /// Returns the size in bytes, a multiple of [`block`](Self::block).
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Returns the bytes of a block: the unit in which the driver is to address the disk.
    pub(crate) fn block(&self) -> u64 {
        self.access.block
    }

    /// Returns `true` if writes are refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.access.read_only
    }

    /// Returns `true` for an image, whose size can change from outside.
    pub(crate) fn is_image(&self) -> bool {
        matches!(self.medium, Medium::File(_))
    }

    /// Returns the state of the image, or `InPlace` if it cannot be determined. Can wait for a file server.
    pub(crate) fn image_state(&self) -> ImageState {
        match &self.medium {
            Medium::File(image) => image.state().unwrap_or_default(),
            Medium::Ram(_) | Medium::Null => ImageState::InPlace,
        }
    }

    /// Returns `true` if data bypass the page cache.
    pub(crate) fn is_direct(&self) -> bool {
        self.access.direct
    }

    /// Returns `true` if a request can take so long that each completion should be published at once.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.medium, Medium::File(_))
    }

    /// Returns `true` if discards are offered.
    pub(crate) fn can_discard(&self) -> bool {
        let may = self.access.discard && !self.access.read_only;
        may && match &self.medium {
            Medium::File(image) => image.can_discard(),
            Medium::Ram(_) | Medium::Null => true,
        }
    }

    /// Checks that `len` bytes from `at` are on the disk.
    ///
    /// # Errors
    /// [`DiskError::Outside`] if they are not.
    pub(crate) fn check(&self, at: u64, len: u64) -> Result<(), DiskError> {
        let size = self.size();
        match at.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(DiskError::Outside { at, len, size }),
        }
    }

    /// Checks like [`check`](Self::check), for a request that writes.
    ///
    /// # Errors
    /// [`DiskError::ReadOnly`] or [`DiskError::Outside`] if the write is not allowed.
    pub(crate) fn check_write(&self, at: u64, len: u64) -> Result<(), DiskError> {
        if self.access.read_only {
            return Err(DiskError::ReadOnly);
        }
        self.check(at, len).inspect_err(|_| self.is_outside())
    }

    /// Reads from byte `at` into `into`.
    ///
    /// # Errors
    /// [`DiskError`]; a part may have been read.
    pub(crate) fn read(&self, at: u64, into: Bytes<'_>) -> Result<(), DiskError> {
        self.check(at, into.len())?;
        match &self.medium {
            Medium::Ram(ram) => ram.read(at, into),
            Medium::File(image) => image.read(at, into),
            Medium::Null => Ok(()),
        }
    }

    /// Reads like [`read`](Self::read), without waiting for a medium.
    ///
    /// # Errors
    /// [`DiskError::WouldWait`] if the data are not in memory, or the system does not report whether they
    /// are; a part may have been read.
    pub(crate) fn read_now(&self, at: u64, into: Bytes<'_>) -> Result<(), DiskError> {
        self.check(at, into.len())?;
        match &self.medium {
            Medium::File(image) => image.read_now(at, into),
            Medium::Ram(_) | Medium::Null => self.read(at, into),
        }
    }

    /// Writes `from` at byte `at`.
    ///
    /// # Errors
    /// [`DiskError`]; a part may have been written, never outside the range.
    pub(crate) fn write(&self, at: u64, from: Bytes<'_>) -> Result<(), DiskError> {
        self.check_write(at, from.len())?;
        let end = at + from.len();
        match &self.medium {
            Medium::Ram(ram) => ram.write(at, from),
            Medium::File(image) => {
                let written = image.write(at, from);
                self.has_written(end);
                written
            }
            Medium::Null => Ok(()),
        }
    }

    /// Writes all data of an image to the medium. Disks without an image have none to write.
    ///
    /// # Errors
    /// The file's error; after one error, always [`DiskError::FlushFailed`].
    pub(crate) fn flush(&self) -> Result<(), DiskError> {
        match &self.medium {
            Medium::File(image) if !self.access.read_only => image.flush(),
            _ => Ok(()),
        }
    }

    /// Releases the storage of the beginning of the range, if the medium can. Its contents are undefined afterwards.
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

    /// Zeroes the beginning of the range. `unmap` allows to release its storage.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn write_zeroes(&self, at: u64, len: u64, unmap: bool) -> Result<Cleared, DiskError> {
        self.check_write(at, len)?;
        let unmap = unmap && self.access.discard;
        match &self.medium {
            Medium::File(image) => {
                let cleared = image.write_zeroes(at, len, unmap);
                self.has_written(at + len);
                Ok(cleared?)
            }
            Medium::Ram(ram) => Ok(ram.write_zeroes(at, len, unmap)?),
            Medium::Null => Ok(Cleared::nothing(len)),
        }
    }
}

#[cfg(test)]
mod tests;
