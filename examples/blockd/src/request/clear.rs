//! Discard and write-zeroes: lists of ranges instead of data.

use super::{Device, Executed, Progress, Refusal, Request, u32_at, u64_at};
use crate::disk::{DiskError, SECTOR, STEP};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};

/// A driver may use at most so many ranges in one discard or write-zeroes: as many as Linux makes use of.
pub(crate) const MOST_RANGES: u32 = 256;
/// A driver may discard or zero at most so many sectors in a range: 4 GiB, the most that Linux asks for at once.
pub(crate) const MOST_RANGE_SECTORS: u32 = 1 << 23;
const RANGE_LEN: u64 = 16;

impl Device {
    /// Clears the next stretch: all ranges are checked before any is touched.
    pub(super) fn clear(
        &self,
        request: &Request<'_>,
        write_through: bool,
        progress: &mut Progress,
    ) -> Result<Executed, Refusal> {
        let discard = request.kind == VIRTIO_BLK_T_DISCARD;
        if discard && !self.disk.can_discard() && !self.disk.is_read_only() {
            return Err(Refusal::Unsupported {
                kind: request.kind,
                flags: 0,
            });
        }
        let mut raw = [0; (RANGE_LEN * MOST_RANGES as u64) as usize];
        let raw = self.checked_ranges(request, &mut raw)?;
        let mut cost = 0;
        // Of the ranges in order, so many bytes were cleared in earlier steps.
        let mut skip = progress.0;
        for range in raw.chunks_exact(RANGE_LEN as usize).map(Range::from_raw) {
            let done = skip.min(range.len());
            skip -= done;
            let (mut at, mut left) = (range.position()? + done, range.len() - done);
            while left > 0 {
                if cost >= STEP {
                    return Ok(Executed {
                        moved: cost,
                        written: None,
                    });
                }
                let cleared = if discard {
                    self.disk.discard(at, left)?
                } else {
                    self.disk.write_zeroes(at, left, range.may_unmap())?
                };
                at += cleared.bytes;
                left -= cleared.bytes;
                progress.0 += cleared.bytes;
                cost += cleared.cost;
            }
        }
        if write_through {
            self.disk.flush()?;
        }
        Ok(Executed {
            moved: cost,
            written: Some(0),
        })
    }

    /// The request's ranges, copied to `raw`, if each of them is allowed.
    fn checked_ranges<'a>(&self, request: &Request<'_>, raw: &'a mut [u8]) -> Result<&'a [u8], Refusal> {
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
        let known_flags = if kind == VIRTIO_BLK_T_DISCARD {
            0
        } else {
            VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
        };
        for range in raw.chunks_exact(RANGE_LEN as usize).map(Range::from_raw) {
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
        Ok(raw)
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

    fn may_unmap(&self) -> bool {
        self.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0
    }

    fn len(&self) -> u64 {
        u64::from(self.sectors) * SECTOR
    }
}
