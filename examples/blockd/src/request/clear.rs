//! Discard and write-zeroes: lists of ranges instead of data.

use super::{Device, Refusal, Request, u32_at, u64_at};
use crate::disk::{DiskError, SECTOR};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};

/// A driver is told to use at most so many ranges in one discard or write-zeroes.
pub(crate) const MOST_RANGES: u32 = 16;
/// A driver is told to discard or zero at most so many sectors at once: 4 MiB, for the loop waits while it is done.
pub(crate) const MOST_RANGE_SECTORS: u32 = 8192;
const RANGE_LEN: u64 = 16;

impl Device {
    /// Discards or zeroes ranges: all of them are looked at before the first is touched.
    pub(super) fn clear(&self, request: &Request<'_>, write_through: bool) -> Result<u32, Refusal> {
        let mut raw = [0; (RANGE_LEN * MOST_RANGES as u64) as usize];
        let len = request.from_driver.len();
        if len > raw.len() as u64 || len == 0 || !len.is_multiple_of(RANGE_LEN) {
            return Err(Refusal::Ranges);
        }
        if self.disk.is_read_only() {
            return Err(DiskError::ReadOnly.into());
        }
        let raw = &mut raw[..len as usize];
        request.from_driver.read(raw)?;
        let kind = request.kind;
        let discard = kind == VIRTIO_BLK_T_DISCARD;
        let known_flags = if discard {
            0
        } else {
            VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
        };
        let ranges = || raw.chunks_exact(RANGE_LEN as usize).map(Range::from_raw);
        for range in ranges() {
            if range.flags & !known_flags != 0 {
                return Err(Refusal::Unsupported {
                    kind,
                    flags: range.flags,
                });
            }
            if range.sectors > MOST_RANGE_SECTORS {
                return Err(Refusal::Ranges);
            }
            self.disk.check(range.position()?, range.len())?;
        }
        for range in ranges() {
            let at = range.position()?;
            if discard {
                self.disk.discard(at, range.len())?;
            } else {
                self.disk.write_zeroes(
                    at,
                    range.len(),
                    range.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0,
                )?;
            }
        }
        if write_through {
            self.disk.flush()?;
        }
        Ok(0)
    }
}

/// One range of a discard or write-zeroes.
struct Range {
    sector: u64,
    sectors: u32,
    flags: u32,
}

impl Range {
    fn from_raw(raw: &[u8]) -> Self {
        Self {
            sector: u64_at(raw, 0),
            sectors: u32_at(raw, 8),
            flags: u32_at(raw, 12),
        }
    }

    fn position(&self) -> Result<u64, Refusal> {
        self.sector
            .checked_mul(SECTOR)
            .ok_or(Refusal::Sector(self.sector))
    }

    fn len(&self) -> u64 {
        u64::from(self.sectors) * SECTOR
    }
}
