//! Discard and write-zeroes: lists of ranges instead of data.

use super::{Device, Executed, Progress, Request, RequestError, u32_at, u64_at};
use crate::disk::{Clear, DiskError, RingProgress, RingStep, SECTOR, STEP};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};

/// The most ranges of a discard or write-zeroes. Linux uses no more.
pub(crate) const MOST_RANGES: u32 = 256;
/// The most sectors of a range: 4 GiB. Linux sends no longer ranges.
pub(crate) const MOST_RANGE_SECTORS: u32 = 1 << 23;
const RANGE_LEN: u64 = 16;

impl Device {
    /// Executes the next step of a discard or write-zeroes. No range is cleared unless all are allowed.
    pub(super) fn clear(
        &self,
        request: &Request<'_>,
        write_through: bool,
        progress: &mut Progress,
    ) -> Result<Executed, RequestError> {
        let discard = request.kind == VIRTIO_BLK_T_DISCARD;
        let mut raw = [0; (RANGE_LEN * MOST_RANGES as u64) as usize];
        let raw = self.checked_ranges(request, &mut raw)?;
        let mut cost = 0;
        // The number of bytes that earlier steps have cleared, counted over the ranges in order.
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

    /// Returns the next step of the ring for a discard or write-zeroes, or `None` if all ranges are cleared.
    pub(super) fn next_clear(
        &self,
        request: &Request<'_>,
        progress: RingProgress,
    ) -> Result<Option<RingStep>, RequestError> {
        let mut raw = [0; (RANGE_LEN * MOST_RANGES as u64) as usize];
        let mut skip = progress.done;
        for range in self
            .checked_ranges(request, &mut raw)?
            .chunks_exact(RANGE_LEN as usize)
        {
            let range = Range::from_raw(range);
            let done = skip.min(range.len());
            skip -= done;
            if done < range.len() {
                let how = if request.kind == VIRTIO_BLK_T_DISCARD {
                    Clear::Discard
                } else {
                    let unmap = range.may_unmap();
                    Clear::Zeroes { unmap }
                };
                let (at, left) = (range.position()? + done, range.len() - done);
                return Ok(Some(self.disk.next_to_clear(how, at, left, progress)?));
            }
        }
        Ok(None)
    }

    /// Copies the request's ranges to `raw` and checks each of them.
    fn checked_ranges<'a>(&self, request: &Request<'_>, raw: &'a mut [u8]) -> Result<&'a [u8], RequestError> {
        if request.kind == VIRTIO_BLK_T_DISCARD && !self.disk.can_discard() && !self.disk.is_read_only() {
            return Err(RequestError::Unsupported {
                kind: request.kind,
                flags: 0,
            });
        }
        let len = request.from_driver.len();
        if len > raw.len() as u64 || len == 0 || !len.is_multiple_of(RANGE_LEN) {
            return Err(RequestError::Ranges);
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
                return Err(RequestError::Unsupported {
                    kind,
                    flags: range.flags,
                });
            }
            if range.sectors > MOST_RANGE_SECTORS {
                return Err(RequestError::Ranges);
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

    fn position(&self) -> Result<u64, RequestError> {
        self.sector
            .checked_mul(SECTOR)
            .ok_or(RequestError::Sector(self.sector))
    }

    fn may_unmap(&self) -> bool {
        self.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0
    }

    fn len(&self) -> u64 {
        u64::from(self.sectors) * SECTOR
    }
}
