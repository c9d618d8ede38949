//! A virtio-blk request: from the chain's bytes to the disk and back to a status.
//!
//! Whatever the driver asks for, there are only two ends: a status byte in the place the driver gave for it, or a
//! [`Broken`] that says the queue cannot be served any longer. The disk is never touched outside its size.
//!
//! A request may be of any length up to [`MOST_BYTES`], and a discard may clear terabytes. So a request is served in steps
//! of about [`STEP`] bytes, and all that is kept between two steps is its [`Progress`]: everything else is read and checked
//! anew, as the driver may have changed it.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

mod clear;

pub(crate) use clear::{MOST_RANGE_SECTORS, MOST_RANGES};

use crate::chain::{Bytes, Chain, ChainError, Unmapped};
use crate::disk::{Disk, DiskError, SECTOR, STEP};
use crate::memory::Memory;

/// A longer read or write is an error: with its status it would have more bytes than the specification allows.
pub(crate) const MOST_BYTES: u64 = (u32::MAX as u64 - 1) / SECTOR * SECTOR;

const HEADER_LEN: u64 = 16;
const ID_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;

/// The queue makes no sense any more: there is no way to report a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The chain itself.
    #[error("a malformed chain: {0}")]
    Chain(#[from] ChainError),
    /// There is no room for the request's header or status.
    #[error("a request of {readable} bytes to read and {writable} to write has no header or no status")]
    TooShort {
        /// Bytes the device may read.
        readable: u64,
        /// Bytes the device may write.
        writable: u64,
    },
    /// The header or the status lies in no shared memory.
    #[error("header or status: {0}")]
    Unmapped(#[from] Unmapped),
}

/// Why a request got a status other than "fine".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The disk said no.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Not a whole number of sectors, more than [`MOST_BYTES`], or fewer than have been transferred already.
    #[error("{0} bytes are no whole number of sectors, or too many at once")]
    Length(u64),
    /// The sector's first byte cannot be told in 64 bits.
    #[error("sector {0} is beyond any disk")]
    Sector(u64),
    /// Too many ranges in a discard or write-zeroes, a range too long, or a part of one.
    #[error("ranges of a discard or write-zeroes that are not allowed")]
    Ranges,
    /// A type of request, or a flag, that this device does not know.
    #[error("request type {kind} with flags {flags:#x} is not supported")]
    Unsupported {
        /// The type.
        kind: u32,
        /// The flags, where the type has some.
        flags: u32,
    },
}

impl From<Unmapped> for Refusal {
    fn from(unmapped: Unmapped) -> Self {
        Self::Disk(unmapped.into())
    }
}

/// How far a request has come: so many bytes are transferred or cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress(u64);

/// What one step of a request did.
#[derive(Debug)]
pub(crate) struct Step {
    /// How many bytes went to or from the disk, or what else took as long.
    pub(crate) moved: u64,
    /// How the request ended; `None` if there is more to do.
    pub(crate) done: Option<Done>,
}

/// What a request's completion says.
#[derive(Debug)]
pub(crate) struct Done {
    /// How many bytes the device has written, the status included.
    pub(crate) written: u32,
    /// Why the status is not "fine".
    pub(crate) refused: Option<Refusal>,
}

/// What one step of a request's execution did.
struct Executed {
    moved: u64,
    /// How many bytes of the driver's buffers were written, if all is done.
    written: Option<u32>,
}

impl Executed {
    /// All is done in one step that took no time to speak of.
    fn at_once(written: u32) -> Self {
        Self {
            moved: written.into(),
            written: Some(written),
        }
    }
}

/// What a queue serves: the disk, and what a driver may know about it.
#[derive(Debug)]
pub(crate) struct Device {
    /// The disk.
    pub(crate) disk: Disk,
    /// Its serial number, padded with zeroes.
    pub(crate) id: [u8; ID_LEN],
}

impl Device {
    /// A device with this serial number, cut to what fits.
    pub(crate) fn new(disk: Disk, serial: &str) -> Self {
        let mut id = [0; ID_LEN];
        let len = serial.len().min(ID_LEN);
        id[..len].copy_from_slice(&serial.as_bytes()[..len]);
        Self { disk, id }
    }

    /// Does the next step of what the chain asks for, and moves `progress` on, which is the default at first. With
    /// `write_through`, a write is on the medium before it is reported.
    ///
    /// # Errors
    /// [`Broken`] if there is nowhere to report a status.
    #[inline]
    pub(crate) fn serve(
        &self,
        memory: &Memory,
        chain: &Chain,
        write_through: bool,
        progress: &mut Progress,
    ) -> Result<Step, Broken> {
        let readable = Bytes::new(memory, &chain.readable);
        let writable = Bytes::new(memory, &chain.writable);
        let too_short = Broken::TooShort {
            readable: readable.len(),
            writable: writable.len(),
        };
        let (header, from_driver) = readable.split_at(HEADER_LEN).ok_or(too_short)?;
        let before_status = writable.len().checked_sub(1).ok_or(too_short)?;
        let (to_driver, status) = writable.split_at(before_status).ok_or(too_short)?;
        let mut raw = [0; HEADER_LEN as usize];
        header.read(&mut raw)?;
        let request = Request {
            kind: u32_at(&raw, 0),
            sector: u64_at(&raw, 8),
            from_driver,
            to_driver,
        };

        let (code, moved, written, refused) = match self.execute(&request, write_through, progress) {
            Ok(Executed { moved, written: None }) => return Ok(Step { moved, done: None }),
            Ok(Executed {
                moved,
                written: Some(written),
            }) => (VIRTIO_BLK_S_OK, moved, written, None),
            Err(refusal @ Refusal::Unsupported { .. }) => (VIRTIO_BLK_S_UNSUPP, 0, 0, Some(refusal)),
            Err(refusal) => (VIRTIO_BLK_S_IOERR, 0, 0, Some(refusal)),
        };
        status.write(&[code as u8])?;
        Ok(Step {
            moved,
            done: Some(Done {
                written: written + 1,
                refused,
            }),
        })
    }

    /// Does the next step of the request.
    #[inline]
    fn execute(
        &self,
        request: &Request<'_>,
        write_through: bool,
        progress: &mut Progress,
    ) -> Result<Executed, Refusal> {
        match request.kind {
            VIRTIO_BLK_T_IN => {
                let all = request.to_driver;
                let moved = self.transfer(request, all, progress, |at, part| self.disk.read(at, part))?;
                let is_done = progress.0 == all.len();
                Ok(Executed {
                    moved,
                    // At most MOST_BYTES, so it fits.
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
            kind => Err(Refusal::Unsupported { kind, flags: 0 }),
        }
    }

    /// Moves the next [`STEP`] bytes of a transfer; how many there were. All of it must be on the disk before any is moved.
    #[inline]
    fn transfer(
        &self,
        request: &Request<'_>,
        all: Bytes<'_>,
        progress: &mut Progress,
        step: impl FnOnce(u64, Bytes<'_>) -> Result<(), DiskError>,
    ) -> Result<u64, Refusal> {
        let len = all.len();
        let at = request.position(len)?;
        if len <= STEP && progress.0 == 0 {
            step(at, all)?;
            progress.0 = len;
            return Ok(len);
        }
        self.disk.check(at, len)?;
        let done = progress.0;
        let too_short = || Refusal::Length(len);
        let (_, rest) = all.split_at(done).ok_or_else(too_short)?;
        let count = rest.len().min(STEP);
        let (part, _) = rest.split_at(count).ok_or_else(too_short)?;
        step(at + done, part)?;
        progress.0 = done + count;
        Ok(count)
    }
}

/// A request, its header read.
struct Request<'a> {
    kind: u32,
    sector: u64,
    from_driver: Bytes<'a>,
    to_driver: Bytes<'a>,
}

impl Request<'_> {
    /// The first byte of a transfer of `len` bytes.
    #[inline]
    fn position(&self, len: u64) -> Result<u64, Refusal> {
        if !len.is_multiple_of(SECTOR) || len > MOST_BYTES {
            return Err(Refusal::Length(len));
        }
        self.sector
            .checked_mul(SECTOR)
            .ok_or(Refusal::Sector(self.sector))
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
