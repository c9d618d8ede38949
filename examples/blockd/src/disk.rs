//! What is behind an export: an image file, memory, or nothing at all.
//!
//! A disk reads and writes within its size and nowhere else; it knows nothing of queues. File access is synchronous: the
//! loop waits for it.

mod image;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;
use vm_memory::{MmapRegion, VolatileMemory};

use crate::chain::{Bytes, Unmapped};
use image::{allocate, in_steps, open_image, read_file};

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
    /// The file said no.
    #[error("the image file: {0}")]
    File(#[from] io::Error),
}

#[derive(Debug)]
enum Medium {
    File { file: File, step: RefCell<Vec<u8>> },
    Ram(MmapRegion),
    Null,
}

/// A disk of whole sectors.
#[derive(Debug)]
pub(crate) struct Disk {
    medium: Medium,
    size: u64,
    read_only: bool,
}

impl Disk {
    /// Opens or makes it.
    ///
    /// # Errors
    /// What the system says to opening the file or reserving the memory.
    pub(crate) fn open(source: &Source, read_only: bool) -> io::Result<Self> {
        let (medium, bytes) = match source {
            Source::File(path) => {
                let (file, bytes) = open_image(path, read_only)?;
                (
                    Medium::File {
                        file,
                        step: RefCell::default(),
                    },
                    bytes,
                )
            }
            Source::Ram(bytes) => {
                let len = usize::try_from(*bytes).map_err(io::Error::other)?;
                (
                    Medium::Ram(MmapRegion::new(len.max(1)).map_err(io::Error::other)?),
                    *bytes,
                )
            }
            Source::Null(bytes) => (Medium::Null, *bytes),
        };
        Ok(Self {
            medium,
            size: bytes / SECTOR * SECTOR,
            read_only,
        })
    }

    /// Bytes, a multiple of [`SECTOR`].
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether writing is refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether a request may take so long that earlier ones should not wait to be reported.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.medium, Medium::File { .. })
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
        if self.read_only {
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
            Medium::Ram(ram) => {
                let mut from = at as usize;
                into.for_each(|piece| {
                    let there = ram.get_slice(from, piece.len()).map_err(io::Error::other)?;
                    there.copy_to_volatile_slice(piece);
                    from += piece.len();
                    Ok(())
                })
            }
            Medium::File { file, step } => in_steps(step, at, into, |step, at, part| {
                read_file(file, step, at)?;
                Ok(part.write(step)?)
            }),
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
            Medium::Ram(ram) => {
                let mut to = at as usize;
                from.for_each(|piece| {
                    let there = ram.get_slice(to, piece.len()).map_err(io::Error::other)?;
                    piece.copy_to_volatile_slice(there);
                    to += piece.len();
                    Ok(())
                })
            }
            Medium::File { file, step } => in_steps(step, at, from, |step, at, part| {
                part.read(step)?;
                Ok(file.write_all_at(step, at)?)
            }),
            Medium::Null => Ok(()),
        }
    }

    /// Makes what has been written survive a loss of power, where that means anything.
    ///
    /// # Errors
    /// What the file says.
    pub(crate) fn flush(&self) -> Result<(), DiskError> {
        match &self.medium {
            Medium::File { file, .. } if !self.read_only => Ok(file.sync_data()?),
            _ => Ok(()),
        }
    }

    /// Gives the range back: its contents do not matter any more. A file that cannot do that keeps it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn discard(&self, at: u64, len: u64) -> Result<(), DiskError> {
        self.check_write(at, len)?;
        match &self.medium {
            Medium::File { file, .. } => {
                allocate(file, FallocateFlags::PUNCH_HOLE, at, len)?;
                Ok(())
            }
            Medium::Ram(_) => self.zero(at, len),
            Medium::Null => Ok(()),
        }
    }

    /// Makes the range read as zeroes; `unmap` allows to give it back besides.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn write_zeroes(&self, at: u64, len: u64, unmap: bool) -> Result<(), DiskError> {
        self.check_write(at, len)?;
        match &self.medium {
            Medium::File { file, .. } => {
                let how = if unmap {
                    FallocateFlags::PUNCH_HOLE
                } else {
                    FallocateFlags::ZERO_RANGE
                };
                if allocate(file, how, at, len)? {
                    Ok(())
                } else {
                    self.zero(at, len)
                }
            }
            Medium::Ram(_) => self.zero(at, len),
            Medium::Null => Ok(()),
        }
    }

    /// Writes zeroes, the long way.
    fn zero(&self, at: u64, len: u64) -> Result<(), DiskError> {
        static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
        let (mut at, mut left) = (at, len);
        while left > 0 {
            let count = left.min(ZEROES.len() as u64);
            let zeroes = &ZEROES[..count as usize];
            match &self.medium {
                Medium::File { file, .. } => file.write_all_at(zeroes, at)?,
                Medium::Ram(ram) => {
                    ram.get_slice(at as usize, zeroes.len())
                        .map_err(io::Error::other)?
                        .copy_from(zeroes);
                }
                Medium::Null => {}
            }
            at += count;
            left -= count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
