//! In-flight tracking: records the outstanding requests of a queue in memory that outlives the daemon.
//!
//! Without tracking, a queue completes its requests in the order of the available ring. After a kill, the
//! used index alone tells the next daemon which requests are complete. With tracking, requests complete in
//! any order: the client keeps an [`InflightArea`] with a region for each queue, and each daemon gets it from
//! the client (`VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD`). [`Tracking`] writes and reads the region of one
//! queue.
//!
//! The area is memory of the client: the daemon checks every value that it reads, and refuses a value that
//! contradicts the rings.

mod error;
mod kill_point;
mod region;
#[cfg(test)]
mod tests;
mod tracking;

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::memory::{Mapping, map_file};
use crate::ring::{Ring, check_size};
pub(crate) use error::InflightError;
use error::MOST_BYTES;
#[cfg(test)]
pub(crate) use kill_point::live;
use region::{ALIGNMENT, ENTRY_LEN, HEADER_LEN, Region};
pub(crate) use tracking::Tracking;

/// The regions of an area: their number, and the entries of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    queues: u16,
    size: u16,
}

impl Layout {
    /// Returns the layout of regions for `queues` queues of this size, of an export with `has` queues.
    ///
    /// # Errors
    /// [`InflightError`] if the export has fewer queues, if the size is invalid, or if the area would be too
    /// long.
    pub(crate) fn of(queues: u16, size: u16, has: usize) -> Result<Self, InflightError> {
        if queues == 0 || usize::from(queues) > has {
            return Err(InflightError::Queues { wanted: queues, has });
        }
        let size = check_size(size.into())?;
        let layout = Self { queues, size };
        if layout.bytes() > MOST_BYTES {
            return Err(InflightError::TooLong { queues, size });
        }
        Ok(layout)
    }

    /// Returns the length of the area in bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.region_bytes() * u64::from(self.queues)
    }

    fn region_bytes(self) -> u64 {
        (HEADER_LEN + ENTRY_LEN * usize::from(self.size)).next_multiple_of(ALIGNMENT) as u64
    }

    /// Makes an area without requests in flight. Its length cannot be changed.
    ///
    /// # Errors
    /// [`InflightError::Make`] if the system refuses it.
    pub(crate) fn make(self) -> Result<File, InflightError> {
        let make = || -> io::Result<File> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file: File = rustix::fs::memfd_create("blockd-inflight", flags)?.into();
            file.set_len(self.bytes())?;
            rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
            Ok(file)
        };
        make().map_err(InflightError::Make)
    }
}

/// The client's memory with a region for each queue.
#[derive(Debug)]
pub(crate) struct InflightArea {
    map: Arc<Mapping>,
    layout: Layout,
}

impl InflightArea {
    /// Maps an area of `len` bytes that begins at `offset` of a file.
    ///
    /// # Errors
    /// [`InflightError`] if it is too short, cannot be mapped, or has a header that is not supported.
    pub(crate) fn map(layout: Layout, file: File, offset: u64, len: u64) -> Result<Self, InflightError> {
        let needed = layout.bytes();
        if len < needed {
            return Err(InflightError::TooShort { needed, has: len });
        }
        let map = Arc::new(map_file(file, offset, needed)?);
        let area = Self { map, layout };
        for queue in 0..layout.queues {
            area.region(queue.into()).check_header()?;
        }
        match area.map.is_lost() {
            true => Err(InflightError::Lost),
            false => Ok(area),
        }
    }

    /// Returns the region of a queue, which the area must have.
    fn region(&self, queue: usize) -> Region {
        let at = queue * self.layout.region_bytes() as usize;
        Region::new(self.map.clone(), at, self.layout.size)
    }
}

/// The starting point of a queue.
#[derive(Debug)]
pub(crate) struct Start {
    /// The next entry of the available ring.
    pub(crate) next_available: u16,
    /// The region that tracks its requests, including those that a former daemon has left.
    pub(crate) tracking: Option<Tracking>,
}

impl Start {
    /// Determines the starting point of the queue of this index. `base` is the position that the client has
    /// set, and `area` is the area that it has shared. The queue must not be served meanwhile.
    ///
    /// # Errors
    /// [`InflightError`] if the region contradicts itself or the rings.
    pub(crate) fn of(
        ring: &Ring,
        base: u16,
        index: usize,
        area: Option<&InflightArea>,
    ) -> Result<Self, InflightError> {
        let with_region = |area: &&InflightArea| index < area.layout.queues.into();
        let Some(area) = area.filter(with_region) else {
            return Ok(Self::untracked(ring, base));
        };
        let (queue, size) = (ring.size(), area.layout.size);
        if queue > size {
            return Err(InflightError::Queue { queue, area: size });
        }
        let (tracking, next_available) = Tracking::recover(area.region(index), ring, base)?;
        match area.map.is_lost() {
            true => Err(InflightError::Lost),
            false => Ok(Self {
                next_available,
                tracking: Some(tracking),
            }),
        }
    }

    /// Returns the start of a queue that completes its requests in their order.
    pub(crate) fn untracked(ring: &Ring, base: u16) -> Self {
        Self {
            next_available: ring.resume_at(base),
            tracking: None,
        }
    }
}
