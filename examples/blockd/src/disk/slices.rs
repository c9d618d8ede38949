//! Disks read into and written from memory of the daemon, and the extents of a disk.

use super::{Disk, DiskError, Medium};

/// A part of a disk that is all data or all hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The number of bytes, at least one.
    pub(crate) len: u64,
    /// Set if the extent takes no storage and reads as zeroes.
    pub(crate) is_hole: bool,
}

impl Disk {
    /// Reads like [`read`](Self::read), into a slice.
    ///
    /// # Errors
    /// [`DiskError`]; a part may have been read.
    #[inline]
    pub(crate) fn read_into(&self, at: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.check(at, into.len() as u64)?;
        match &self.medium {
            Medium::Ram(ram) => ram.read_into(at, into),
            Medium::File(image) => image.read_into(at, into),
            // The slice can contain bytes of another request.
            Medium::Null => {
                into.fill(0);
                Ok(())
            }
        }
    }

    /// Reads like [`read_into`](Self::read_into), without waiting for a medium.
    ///
    /// # Errors
    /// [`DiskError::WouldWait`] if the data are not in memory, or the system does not report whether they
    /// are; a part may have been read.
    pub(crate) fn read_into_now(&self, at: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.check(at, into.len() as u64)?;
        match &self.medium {
            Medium::File(image) => image.read_into_now(at, into),
            Medium::Ram(_) | Medium::Null => self.read_into(at, into),
        }
    }

    /// Writes like [`write`](Self::write), from a slice.
    ///
    /// # Errors
    /// [`DiskError`]; a part may have been written, never outside the range.
    #[inline]
    pub(crate) fn write_from(&self, at: u64, from: &[u8]) -> Result<(), DiskError> {
        self.check_write(at, from.len() as u64)?;
        match &self.medium {
            Medium::Ram(ram) => ram.write_from(at, from),
            Medium::File(image) => {
                let end = at + from.len() as u64;
                let written = image.write_from(at, from);
                self.has_written(end);
                written
            }
            Medium::Null => Ok(()),
        }
    }

    /// Returns the first extent of a range that is not empty. It is at most as long as the range.
    ///
    /// # Errors
    /// [`DiskError`] if the range is not on the disk, or the file cannot be examined.
    pub(crate) fn extent(&self, at: u64, len: u64) -> Result<Extent, DiskError> {
        self.check(at, len)?;
        match &self.medium {
            Medium::File(image) => Ok(image.extent(at, len)?),
            Medium::Ram(_) | Medium::Null => Ok(Extent { len, is_hole: false }),
        }
    }

    /// Advises the system to read the range ahead. The system may ignore that.
    ///
    /// # Errors
    /// [`DiskError`] if the range is not on the disk.
    pub(crate) fn prefetch(&self, at: u64, len: u64) -> Result<(), DiskError> {
        self.check(at, len)?;
        if let Medium::File(image) = &self.medium {
            image.prefetch(at, len);
        }
        Ok(())
    }

    /// Returns a description of the disk, for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self.medium {
            Medium::File(_) => "image",
            Medium::Ram(_) => "RAM disk",
            Medium::Null => "null disk",
        }
    }
}
