//! Disks in memory. A page takes no memory before the first write to it and after a discard.

use std::io;

use vm_memory::{MmapRegion, VolatileMemory};

use super::DiskError;
use super::clear::{Cleared, Clearing};
use super::sys::release_pages;
use crate::buffers::Bytes;

/// Memory of one disk, private to this process.
#[derive(Debug)]
pub(super) struct Ram {
    map: MmapRegion,
}

impl Ram {
    /// Reserves memory of this number of bytes, which read as zeroes.
    ///
    /// # Errors
    /// If the system refuses the mapping.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        let map = MmapRegion::new(len.max(1)).map_err(io::Error::other)?;
        Ok(Self { map })
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
        // After a failure the pages keep their contents, which a discard allows.
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

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}
