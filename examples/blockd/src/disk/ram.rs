//! Disks in memory. Pages that nothing was written to, or that were discarded, take no memory.

use std::io;

use vm_memory::{MmapRegion, VolatileMemory};

use super::DiskError;
use super::clear::{Cleared, Clearing, ZEROES};
use super::sys::give_back;
use crate::chain::Bytes;

/// Memory of one disk, private to this process.
#[derive(Debug)]
pub(super) struct Ram {
    map: MmapRegion,
}

impl Ram {
    /// Reserves memory for so many bytes, which read as zeroes.
    ///
    /// # Errors
    /// What the system says to the mapping.
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

    /// Gives the whole pages of the range back to the system.
    pub(super) fn discard(&self, at: u64, len: u64) -> Cleared {
        let step = Clearing::new(at, len, page_size());
        let Some(stretch) = step.middle() else {
            return Cleared::nothing(len);
        };
        // A failure leaves the pages as they are, as a discard may.
        if let Err(error) = give_back(&self.map, stretch.from as usize, stretch.len as usize) {
            tracing::debug!(%error, "memory cannot be given back");
        }
        stretch.cleared(at)
    }

    /// Zeroes the beginning of the range; pages are given back where that is allowed and possible.
    pub(super) fn write_zeroes(&self, at: u64, len: u64, unmap: bool) -> io::Result<Cleared> {
        let step = Clearing::new(at, len, page_size());
        if unmap
            && let Some(stretch) = step.middle()
            && stretch.from == at
            && give_back(&self.map, at as usize, stretch.len as usize).is_ok()
        {
            return Ok(stretch.cleared(at));
        }
        let count = step.by_hand(unmap);
        let mut done = 0;
        while done < count {
            let part = (count - done).min(ZEROES.len() as u64) as usize;
            let there = self
                .map
                .get_slice((at + done) as usize, part)
                .map_err(io::Error::other)?;
            there.copy_from(&ZEROES[..part]);
            done += part as u64;
        }
        Ok(Cleared::by_hand(count))
    }
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}
