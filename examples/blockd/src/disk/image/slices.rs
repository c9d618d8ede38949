//! An image read into and written from memory of the daemon, its extents, and prefetching.

use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use rustix::fs::{Advice, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::{Image, read_all};
use crate::disk::{DiskError, Extent};

impl Image {
    pub(in crate::disk) fn read_into(&self, at: u64, into: &mut [u8]) -> Result<(), DiskError> {
        Ok(read_all(&self.file, into, at)?)
    }

    /// Reads what is in the page cache.
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
            // A part of it is there, or the file is shorter now: a read that may wait says which.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Err(DiskError::WouldWait),
            Err(_) => {
                self.always_waits.store(true, Ordering::Relaxed);
                Err(DiskError::WouldWait)
            }
        }
    }

    pub(in crate::disk) fn write_from(&self, at: u64, from: &[u8]) -> Result<(), DiskError> {
        Ok(self.file.write_all_at(from, at)?)
    }

    /// The first extent of a range that is not empty. A file that the system tells nothing about consists of data.
    pub(in crate::disk) fn extent(&self, at: u64, len: u64) -> io::Result<Extent> {
        let data = |len| Ok(Extent { len, is_hole: false });
        if self.device.is_some() {
            return data(len);
        }
        let next = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(next) => next,
            // There is no data up to the end of the file. What a truncated file has lost is not a hole: reading it is an error.
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

    /// Asks the system to read a range into the page cache. It may do nothing.
    pub(in crate::disk) fn prefetch(&self, at: u64, len: u64) {
        let advised = rustix::fs::fadvise(&self.file, at, NonZeroU64::new(len), Advice::WillNeed);
        if let Err(error) = advised {
            tracing::debug!(%error, "the system does not prefetch");
        }
    }
}
