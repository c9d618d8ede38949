//! An image read into and written from memory of the daemon, its extents, and prefetching.

use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use rustix::fs::{Advice, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::direct::{BUFFER_ALIGN, aligned};
use super::whole::read_all;
use super::{BUFFER, Image, PASSING};
use crate::disk::{DiskError, Extent};

impl Image {
    pub(in crate::disk) fn read_into(&self, at: u64, into: &mut [u8]) -> Result<(), DiskError> {
        if self.direct.is_none() {
            return Ok(read_all(&self.file, into, at)?);
        }
        for_each_part(at, into.len(), |buffer, at, part| {
            self.read_part(buffer, at)?;
            into[part].copy_from_slice(buffer);
            Ok(())
        })
    }

    /// Reads data that are in the page cache.
    pub(in crate::disk) fn read_into_now(&self, at: u64, into: &mut [u8]) -> Result<(), DiskError> {
        if self.always_waits.load(Ordering::Relaxed) {
            return Err(DiskError::WouldWait);
        }
        let len = into.len();
        match preadv2(
            &self.file,
            &mut [IoSliceMut::new(into)],
            at,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(count) if count == len => Ok(()),
            // A part of the data is there, or the file is shorter now. A read that may wait finds out which.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Err(DiskError::WouldWait),
            Err(_) => {
                self.always_waits.store(true, Ordering::Relaxed);
                Err(DiskError::WouldWait)
            }
        }
    }

    pub(in crate::disk) fn write_from(&self, at: u64, from: &[u8]) -> Result<(), DiskError> {
        if self.direct.is_none() {
            return Ok(self.file.write_all_at(from, at)?);
        }
        for_each_part(at, from.len(), |buffer, at, part| {
            buffer.copy_from_slice(&from[part]);
            Ok(self.write_part(buffer, at)?)
        })
    }

    /// Returns the first extent of a range that is not empty. If the system reports no extents, the whole
    /// range counts as data.
    pub(in crate::disk) fn extent(&self, at: u64, len: u64) -> io::Result<Extent> {
        let data = |len| Ok(Extent { len, is_hole: false });
        if self.device.is_some() {
            return data(len);
        }
        let next = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(next) => next,
            // There is no data up to the end of the file. The part that a truncated file has lost is not a
            // hole: reading it is an error.
            Err(Errno::NXIO) => match self.file.metadata()?.len() {
                end if end > at => end,
                _ => return data(len),
            },
            Err(_) => return data(len),
        };
        if next > at {
            return Ok(Extent {
                len: len.min(next - at),
                is_hole: true,
            });
        }
        match rustix::fs::seek(&self.file, SeekFrom::Hole(at)) {
            Ok(hole) if hole > at => data(len.min(hole - at)),
            _ => data(len),
        }
    }

    /// Advises the system to read a range into the page cache. The system may ignore that.
    pub(in crate::disk) fn prefetch(&self, at: u64, len: u64) {
        let advised = rustix::fs::fadvise(&self.file, at, NonZeroU64::new(len), Advice::WillNeed);
        if let Err(error) = advised {
            tracing::debug!(%error, "the system does not prefetch");
        }
    }
}

/// Calls `each` for every part of a transfer past the page cache, with an aligned buffer of the part's
/// length, its position, and its range of the slice.
fn for_each_part(
    at: u64,
    len: usize,
    mut each: impl FnMut(&mut [u8], u64, Range<usize>) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    PASSING.with_borrow_mut(|buffer| {
        let most = len.min(BUFFER);
        if buffer.len() < most + BUFFER_ALIGN {
            buffer.resize(most + BUFFER_ALIGN, 0);
        }
        for from in (0..len).step_by(BUFFER) {
            let part = from..len.min(from + BUFFER);
            each(aligned(buffer, part.len()), at + from as u64, part)?;
        }
        Ok(())
    })
}
