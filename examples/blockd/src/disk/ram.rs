//! Disks in memory. A page takes no memory before the first write to it and after a discard.
//!
//! A disk reserves more addresses than its size, so that it can grow in place while requests are executed.

use std::io;

use vm_memory::{MmapRegion, VolatileMemory};

use super::clear::{Cleared, Clearing};
use super::error::{DiskError, ResizeError};
use super::sys::{make_accessible, release_pages};
use crate::buffers::Bytes;

/// The least number of bytes of addresses reserved for a disk. They cost no memory.
const LEAST_ROOM: usize = 64 << 30;
/// The factor by which a disk can grow at least.
const GROWTH: usize = 4;

/// Memory of one disk, private to this process.
#[derive(Debug)]
pub(super) struct Ram {
    /// All reserved addresses. The addresses beyond the size of the disk have never been made accessible, or
    /// are released.
    map: MmapRegion,
}

impl Ram {
    /// Reserves memory of this number of bytes, all zero.
    ///
    /// # Errors
    /// If the system refuses the mapping.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        let room = len.saturating_mul(GROWTH).max(LEAST_ROOM);
        // A limit of addresses (ulimit -v) may leave no space for growth.
        let map = reserve(room).or_else(|_| reserve(len.max(1)))?;
        let ram = Self { map };
        make_accessible(&ram.map, len)?;
        Ok(ram)
    }

    /// Changes the number of bytes from `from` to `to`. The bytes beyond either size are zero afterwards.
    ///
    /// # Errors
    /// If the reserved addresses do not suffice, or the system refuses; nothing has changed.
    pub(super) fn resize(&self, from: u64, to: u64) -> Result<(), ResizeError> {
        let room = self.map.size();
        let no_room = ResizeError::NoRoom(room as u64);
        let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else {
            return Err(no_room);
        };
        if to > room {
            return Err(no_room);
        }
        if to > from {
            // A request that was in flight while the disk shrank may have written there.
            self.clear(from, to)?;
            return Ok(make_accessible(&self.map, to)?);
        }
        self.clear(to, from)
    }

    /// Releases the pages from byte `from` to byte `to`, and zeroes the end of the page of `from`, which is
    /// accessible.
    fn clear(&self, from: usize, to: usize) -> Result<(), ResizeError> {
        let page = page_size() as usize;
        let (whole, end) = (
            from.next_multiple_of(page),
            to.next_multiple_of(page).min(self.map.size()),
        );
        if whole < end {
            release_pages(&self.map, whole, end - whole)?;
        }
        let part = self
            .map
            .get_slice(from, whole.min(to) - from)
            .map_err(io::Error::other)?;
        part.copy_from(&vec![0_u8; part.len()]);
        Ok(())
    }

    pub(super) fn read(&self, at: u64, into: Bytes<'_>) -> Result<(), DiskError> {
        let mut from = at as usize;
        into.for_each(|piece| {
            let there = self.map.get_slice(from, piece.len()).map_err(io::Error::other)?;
            there.copy_to_volatile_slice(piece);
            from += piece.len();
            Ok(())
        })
    }

    pub(super) fn write(&self, at: u64, from: Bytes<'_>) -> Result<(), DiskError> {
        let mut to = at as usize;
        from.for_each(|piece| {
            let there = self.map.get_slice(to, piece.len()).map_err(io::Error::other)?;
            piece.copy_to_volatile_slice(there);
            to += piece.len();
            Ok(())
        })
    }

    #[inline]
    pub(super) fn read_into(&self, at: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let there = self
            .map
            .get_slice(at as usize, into.len())
            .map_err(io::Error::other)?;
        there.copy_to(into);
        Ok(())
    }

    #[inline]
    pub(super) fn write_from(&self, at: u64, from: &[u8]) -> Result<(), DiskError> {
        let there = self
            .map
            .get_slice(at as usize, from.len())
            .map_err(io::Error::other)?;
        there.copy_from(from);
        Ok(())
    }

    /// Releases whole pages of the beginning of the range.
    pub(super) fn discard(&self, at: u64, len: u64) -> Cleared {
        let step = Clearing::new(at, len, page_size());
        let Some(stretch) = step.middle() else {
            return Cleared::nothing(len);
        };
        // After a failure the pages keep their contents, as a discard may do.
        if let Err(error) = release_pages(&self.map, stretch.from as usize, stretch.len as usize) {
            tracing::debug!(%error, "memory cannot be released");
        }
        stretch.cleared(at)
    }

    /// Zeroes the beginning of the range. `unmap` allows to release its pages.
    pub(super) fn write_zeroes(&self, at: u64, len: u64, unmap: bool) -> io::Result<Cleared> {
        let step = Clearing::new(at, len, page_size());
        if unmap
            && let Some(stretch) = step.middle()
            && stretch.from == at
            && release_pages(&self.map, at as usize, stretch.len as usize).is_ok()
        {
            return Ok(stretch.cleared(at));
        }
        Cleared::by_writing(at, step.write_len(unmap), |at, zeroes| {
            let there = self
                .map
                .get_slice(at as usize, zeroes.len())
                .map_err(io::Error::other)?;
            there.copy_from(zeroes);
            Ok(())
        })
    }
}

/// Reserves addresses that cannot be accessed yet.
fn reserve(len: usize) -> io::Result<MmapRegion> {
    let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    MmapRegion::build(None, len, libc::PROT_NONE, flags).map_err(io::Error::other)
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}
