//! Virtio-blk requests. Each is read from a descriptor chain, executed on the disk, and answered with a
//! status.
//!
//! A request ends in one of two ways: with a status byte where the driver expects it, or with a [`MalformedRequest`], after
//! which the queue cannot be served any further. The disk is never accessed outside its size.
//!
//! A transfer can have up to [`MOST_BYTES`], and a discard can clear terabytes. So a request is executed in
//! steps of about [`STEP`] bytes. Only its [`Progress`] is stored between two steps. All other values are
//! read and checked again, because the driver may have changed them.

use std::sync::atomic::{AtomicBool, Ordering};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

mod clear;
mod on_ring;

pub(crate) use clear::{MOST_RANGE_SECTORS, MOST_RANGES};
pub(crate) use on_ring::{OnRing, is_for_threads};

use crate::buffers::{Bytes, Unmapped};
use crate::descriptor_chain::{ChainError, DescriptorChain};
use crate::disk::{Disk, DiskError, SECTOR, STEP};
use crate::memory::Memory;

/// The longest read or write. A longer one, with its status, would have more bytes than the specification
/// allows.
pub(crate) const MOST_BYTES: u64 = (u32::MAX as u64 - 1) / SECTOR * SECTOR;

const HEADER_LEN: u64 = 16;
const ID_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;

/// A request that cannot be answered with a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedRequest {
    /// The descriptor chain is malformed.
    #[error("a malformed descriptor chain: {0}")]
    Chain(#[from] ChainError),
    /// The chain is too short for the header or the status.
    #[error("a request of {readable} bytes to read and {writable} to write has no header or no status")]
    TooShort {
        /// The bytes that the device may read.
        readable: u64,
        /// The bytes that the device may write.
        writable: u64,
    },
    /// The header or the status is not in shared memory.
    #[error("header or status: {0}")]
    Unmapped(#[from] Unmapped),
}

/// The reason for which the status of a request is not `VIRTIO_BLK_S_OK`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The disk returned an error.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The length is not a whole number of sectors, is more than [`MOST_BYTES`], or is less than the number
    /// of bytes transferred already.
    #[error("{0} bytes are not a whole number of sectors, or too many for a request")]
    Length(u64),
    /// The position of the sector exceeds 64 bits.
    #[error("sector {0} is beyond any disk")]
    Sector(u64),
    /// A discard or write-zeroes has too many ranges, a range that is too long, or an incomplete range.
    #[error("ranges of a discard or write-zeroes that are not allowed")]
    Ranges,
    /// The type of the request or a flag is unknown.
    #[error("request type {kind} with flags {flags:#x} is not supported")]
    Unsupported {
        /// The type.
        kind: u32,
        /// The flags, if the type has any.
        flags: u32,
    },
}

impl From<Unmapped> for RequestError {
    fn from(unmapped: Unmapped) -> Self {
        Self::Disk(unmapped.into())
    }
}

/// The number of bytes that a request has transferred or cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress(u64);

/// The result of one step of a request.
#[derive(Debug)]
pub(crate) struct Step {
    /// The cost of the step: the bytes that it moved, or the number of bytes whose transfer takes as long.
    pub(crate) moved: u64,
    /// The completion; `None` if the request needs another step.
    pub(crate) done: Option<Done>,
}

/// The completion of a request.
#[derive(Debug)]
pub(crate) struct Done {
    /// The number of bytes that the device has written, including the status.
    pub(crate) written: u32,
    /// The reason for which the status is not `VIRTIO_BLK_S_OK`.
    pub(crate) error: Option<RequestError>,
    /// The type of the request.
    pub(crate) kind: u32,
    /// The number of bytes of the disk that the request has transferred or cleared; 0 after an error.
    pub(crate) bytes: u64,
}

/// The result of one step of an execution that had no error.
struct Executed {
    moved: u64,
    /// The number of bytes written to the driver's buffers, once the request is complete.
    written: Option<u32>,
}

impl Executed {
    /// Returns the result of a request that is complete after one step of negligible duration.
    fn at_once(written: u32) -> Self {
        Self {
            moved: written.into(),
            written: Some(written),
        }
    }
}

/// The device of a queue: the disk and its identity.
#[derive(Debug)]
pub(crate) struct Device {
    /// The disk.
    pub(crate) disk: Disk,
    /// The serial number, padded with zeroes.
    pub(crate) id: [u8; ID_LEN],
}

impl Device {
    /// Makes a device with this serial number, truncated to the size of the field.
    pub(crate) fn new(disk: Disk, serial: &str) -> Self {
        let mut id = [0; ID_LEN];
        let len = serial.len().min(ID_LEN);
        id[..len].copy_from_slice(&serial.as_bytes()[..len]);
        Self { disk, id }
    }

    /// Executes the next step of the request in `chain` and updates `progress`, which is the default before the first
    /// step. With `write_through`, a write is on the medium before it completes.
    ///
    /// # Errors
    /// [`MalformedRequest`] if no status can be reported.
    #[inline]
    pub(crate) fn serve(
        &self,
        memory: &Memory,
        chain: &DescriptorChain,
        write_through: bool,
        progress: &mut Progress,
    ) -> Result<Step, MalformedRequest> {
        let (request, status) = Request::of(memory, chain)?;
        let (code, moved, written, error) = match self.execute(&request, write_through, progress) {
            Ok(Executed { moved, written: None }) => return Ok(Step { moved, done: None }),
            Ok(Executed {
                moved,
                written: Some(written),
            }) => (VIRTIO_BLK_S_OK, moved, written, None),
            Err(error @ RequestError::Unsupported { .. }) => (VIRTIO_BLK_S_UNSUPP, 0, 0, Some(error)),
            Err(error) => (VIRTIO_BLK_S_IOERR, 0, 0, Some(error)),
        };
        status.write(&[code as u8])?;
        let bytes = if error.is_none() { progress.0 } else { 0 };
        Ok(Step {
            moved,
            done: Some(Done {
                written: written + 1,
                error,
                kind: request.kind,
                bytes,
            }),
        })
    }

    /// Executes the whole request in `chain`, on a thread that may wait. Returns `None` if it was cancelled
    /// meanwhile; a part of it may be done.
    ///
    /// # Errors
    /// The errors of [`serve`](Self::serve).
    pub(crate) fn serve_all(
        &self,
        memory: &Memory,
        chain: &DescriptorChain,
        write_through: bool,
        cancelled: &AtomicBool,
    ) -> Result<Option<Done>, MalformedRequest> {
        let mut progress = Progress::default();
        while !cancelled.load(Ordering::Relaxed) {
            let step = self.serve(memory, chain, write_through, &mut progress)?;
            if step.done.is_some() {
                return Ok(step.done);
            }
        }
        Ok(None)
    }

    /// Returns `true` if the request in `chain` writes to the page cache.
    pub(crate) fn is_buffered_write(&self, memory: &Memory, chain: &DescriptorChain) -> bool {
        let is_write = |(request, _): (Request<'_>, _)| request.kind == VIRTIO_BLK_T_OUT;
        !self.disk.is_direct() && Request::of(memory, chain).is_ok_and(is_write)
    }

    /// Executes the request in `chain` if it is a read of at most [`STEP`] bytes that need not wait for a
    /// medium. Returns `None` if it is not such a read, or if only another method can answer it.
    pub(crate) fn serve_now(&self, memory: &Memory, chain: &DescriptorChain) -> Option<Done> {
        let (request, status) = Request::of(memory, chain).ok()?;
        let to_driver = request.to_driver;
        let len = to_driver.len();
        if request.kind != VIRTIO_BLK_T_IN || len > STEP {
            return None;
        }
        let at = request.position(len).ok()?;
        self.disk.read_now(at, to_driver).ok()?;
        status.write(&[VIRTIO_BLK_S_OK as u8]).ok()?;
        Some(Done {
            // The sum is at most STEP + 1, so it fits.
            written: len as u32 + 1,
            error: None,
            kind: request.kind,
            bytes: len,
        })
    }

    /// Executes the next step of the request.
    #[inline]
    fn execute(
        &self,
        request: &Request<'_>,
        write_through: bool,
        progress: &mut Progress,
    ) -> Result<Executed, RequestError> {
        match request.kind {
            VIRTIO_BLK_T_IN => {
                let all = request.to_driver;
                let moved = self.transfer(request, all, progress, |at, part| self.disk.read(at, part))?;
                let is_done = progress.0 == all.len();
                Ok(Executed {
                    moved,
                    // The length is at most MOST_BYTES, so it fits.
                    written: is_done.then_some(all.len() as u32),
                })
            }
            VIRTIO_BLK_T_OUT => {
                let all = request.from_driver;
                let moved = self.transfer(request, all, progress, |at, part| self.disk.write(at, part))?;
                let is_done = progress.0 == all.len();
                if is_done && write_through {
                    self.disk.flush()?;
                }
                Ok(Executed {
                    moved,
                    written: is_done.then_some(0),
                })
            }
            VIRTIO_BLK_T_FLUSH => {
                self.disk.flush()?;
                Ok(Executed::at_once(0))
            }
            VIRTIO_BLK_T_GET_ID => {
                let len = request.to_driver.len().min(ID_LEN as u64);
                request.to_driver.write(&self.id[..len as usize])?;
                Ok(Executed::at_once(len as u32))
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => self.clear(request, write_through, progress),
            kind => Err(RequestError::Unsupported { kind, flags: 0 }),
        }
    }

    /// Moves the next bytes of a transfer, at most [`STEP`], and returns their number. No byte is moved unless the whole
    /// transfer is within the disk.
    #[inline]
    fn transfer(
        &self,
        request: &Request<'_>,
        all: Bytes<'_>,
        progress: &mut Progress,
        step: impl FnOnce(u64, Bytes<'_>) -> Result<(), DiskError>,
    ) -> Result<u64, RequestError> {
        let at = request.position(all.len())?;
        let done = progress.0;
        // Nearly every request is a single step. `step` is called in only one place, so that the compiler
        // inlines it there.
        let part = if done == 0 && all.len() <= STEP {
            all
        } else {
            self.disk.check(at, all.len())?;
            part_of(all, done).ok_or(RequestError::Length(all.len()))?
        };
        step(at + done, part)?;
        progress.0 = done + part.len();
        Ok(part.len())
    }
}

/// Returns the next [`STEP`] bytes of a transfer after `done` bytes, or the rest if it is shorter. `None` if
/// there are fewer than `done`.
#[inline(never)]
fn part_of(all: Bytes<'_>, done: u64) -> Option<Bytes<'_>> {
    let (_, rest) = all.split_at(done)?;
    let (part, _) = rest.split_at(rest.len().min(STEP))?;
    Some(part)
}

/// A request with its header parsed.
struct Request<'a> {
    kind: u32,
    sector: u64,
    from_driver: Bytes<'a>,
    to_driver: Bytes<'a>,
}

impl<'a> Request<'a> {
    /// Parses the request in `chain`. Returns it and the byte for its status.
    #[inline]
    fn of(memory: &'a Memory, chain: &'a DescriptorChain) -> Result<(Self, Bytes<'a>), MalformedRequest> {
        let readable = Bytes::new(memory, &chain.readable);
        let writable = Bytes::new(memory, &chain.writable);
        let too_short = MalformedRequest::TooShort {
            readable: readable.len(),
            writable: writable.len(),
        };
        let (header, from_driver) = readable.split_at(HEADER_LEN).ok_or(too_short)?;
        let before_status = writable.len().checked_sub(1).ok_or(too_short)?;
        let (to_driver, status) = writable.split_at(before_status).ok_or(too_short)?;
        let mut raw = [0; HEADER_LEN as usize];
        header.read(&mut raw)?;
        let request = Self {
            kind: u32_at(&raw, 0),
            sector: u64_at(&raw, 8),
            from_driver,
            to_driver,
        };
        Ok((request, status))
    }

    /// Returns the first byte of a transfer of `len` bytes.
    #[inline]
    fn position(&self, len: u64) -> Result<u64, RequestError> {
        if !len.is_multiple_of(SECTOR) || len > MOST_BYTES {
            return Err(RequestError::Length(len));
        }
        self.sector
            .checked_mul(SECTOR)
            .ok_or(RequestError::Sector(self.sector))
    }
}

fn u32_at(raw: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&raw[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(raw: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&raw[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests;
