//! A virtio-blk request: from the chain's bytes to the disk and back to a status.
//!
//! Whatever the driver asks for, there are only two ends: a status byte in the place the driver gave for it, or a
//! [`Broken`] that says the queue cannot be served any longer. The disk is never touched outside its size.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use crate::chain::{Bytes, Chain, ChainError, Unmapped};
use crate::disk::{Disk, DiskError, SECTOR};
use crate::memory::Memory;

/// A driver is told to use at most so many ranges in one discard or write-zeroes.
pub(crate) const MOST_RANGES: u32 = 16;
/// A driver is told to discard or zero at most so many sectors at once: 4 MiB, for the loop waits while it is done.
pub(crate) const MOST_RANGE_SECTORS: u32 = 8192;
/// A longer read or write is an error, for the same reason.
pub(crate) const MOST_BYTES: u64 = 64 * 1024 * 1024;

const HEADER_LEN: u64 = 16;
const RANGE_LEN: u64 = 16;
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
    /// Not a whole number of sectors, or more than [`MOST_BYTES`].
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

/// What a request's completion says.
#[derive(Debug)]
pub(crate) struct Done {
    /// How many bytes the device has written, the status included.
    pub(crate) written: u32,
    /// How many bytes went to or from the disk, about.
    pub(crate) moved: u64,
    /// Why the status is not "fine".
    pub(crate) refused: Option<Refusal>,
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

    /// Does what the chain asks for. With `write_through`, a write is on the medium before it is reported.
    ///
    /// # Errors
    /// [`Broken`] if there is nowhere to report a status.
    #[inline]
    pub(crate) fn serve(&self, memory: &Memory, chain: &Chain, write_through: bool) -> Result<Done, Broken> {
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

        let (code, written, refused) = match self.execute(&request, write_through) {
            Ok(written) => (VIRTIO_BLK_S_OK, written, None),
            Err(refusal @ Refusal::Unsupported { .. }) => (VIRTIO_BLK_S_UNSUPP, 0, Some(refusal)),
            Err(refusal) => (VIRTIO_BLK_S_IOERR, 0, Some(refusal)),
        };
        status.write(&[code as u8])?;
        let moved = from_driver.len() + u64::from(written);
        Ok(Done {
            written: written + 1,
            moved,
            refused,
        })
    }

    /// Does the request; how many bytes of the driver's buffers it wrote.
    #[inline]
    fn execute(&self, request: &Request<'_>, write_through: bool) -> Result<u32, Refusal> {
        match request.kind {
            VIRTIO_BLK_T_IN => {
                let at = request.position(request.to_driver.len())?;
                self.disk.read(at, request.to_driver)?;
                // At most MOST_BYTES, so it fits.
                Ok(request.to_driver.len() as u32)
            }
            VIRTIO_BLK_T_OUT => {
                let at = request.position(request.from_driver.len())?;
                self.disk.write(at, request.from_driver)?;
                if write_through {
                    self.disk.flush()?;
                }
                Ok(0)
            }
            VIRTIO_BLK_T_FLUSH => {
                self.disk.flush()?;
                Ok(0)
            }
            VIRTIO_BLK_T_GET_ID => {
                let len = request.to_driver.len().min(ID_LEN as u64);
                request.to_driver.write(&self.id[..len as usize])?;
                Ok(len as u32)
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => self.clear(request, write_through),
            kind => Err(Refusal::Unsupported { kind, flags: 0 }),
        }
    }

    /// Discards or zeroes ranges: all of them are looked at before the first is touched.
    fn clear(&self, request: &Request<'_>, write_through: bool) -> Result<u32, Refusal> {
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
mod tests {
    use super::*;
    use crate::chain::Buffer;
    use crate::disk::Source;
    use crate::memory::tests::simple;

    const DISK: u64 = 1 << 20;
    const OK: u8 = 0;
    const IOERR: u8 = 1;
    const UNSUPP: u8 = 2;

    struct Driver {
        device: Device,
        memory: Memory,
    }

    /// What came of a request: its status, what was written to its buffer, and how much the device says it was.
    #[derive(Debug, PartialEq)]
    struct Outcome {
        status: u8,
        read: Vec<u8>,
        written: u32,
    }

    impl Driver {
        fn new(read_only: bool) -> Self {
            let disk = Disk::open(&Source::Ram(DISK), read_only).unwrap();
            Self {
                device: Device::new(disk, "serial"),
                memory: simple(0x100_0000),
            }
        }

        /// Sends header and data in pieces of the given lengths, the last one taking the rest; likewise for what the
        /// device writes.
        fn send(
            &self,
            header: &[u8],
            data: &[u8],
            room: usize,
            splits: (&[usize], &[usize]),
        ) -> Result<Outcome, Broken> {
            let out = [header, data].concat();
            let readable = pieces(0x1000, out.len(), splits.0);
            let writable = pieces(0x80_1000, room + 1, splits.1);
            let poison = vec![0xa5; room + 1];
            Bytes::new(&self.memory, &readable).write(&out).unwrap();
            Bytes::new(&self.memory, &writable).write(&poison).unwrap();
            let chain = Chain { readable, writable };
            let done = self.device.serve(&self.memory, &chain, false)?;
            let mut back = vec![0; room + 1];
            Bytes::new(&self.memory, &chain.writable).read(&mut back).unwrap();
            let status = back.pop().unwrap();
            assert_eq!(status == OK, done.refused.is_none());
            Ok(Outcome {
                status,
                read: back,
                written: done.written,
            })
        }

        fn simple(&self, kind: u32, sector: u64, data: &[u8], room: usize) -> Outcome {
            self.send(&header(kind, sector), data, room, (&[16], &[room]))
                .unwrap()
        }
    }

    fn header(kind: u32, sector: u64) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
    }

    fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
        [
            &sector.to_le_bytes()[..],
            &sectors.to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat()
    }

    fn pieces(mut guest: u64, total: usize, lens: &[usize]) -> Vec<Buffer> {
        let mut buffers = Vec::new();
        let mut left = total;
        for len in lens.iter().copied().chain([usize::MAX]) {
            let len = len.min(left);
            buffers.push(Buffer {
                guest,
                len: len as u32,
            });
            guest += len as u64 + 7;
            left -= len;
            if left == 0 {
                break;
            }
        }
        buffers
    }

    #[test]
    fn any_layout_will_do() {
        let driver = Driver::new(false);
        let text: Vec<u8> = (0..1024).map(|i| (i % 253) as u8).collect();
        let outs: [&[usize]; 5] = [&[16], &[1, 2, 3], &[1040], &[16, 511, 2], &[15, 2]];
        let ins: [&[usize]; 5] = [&[1024], &[1025], &[1023], &[1, 1], &[512, 512]];
        for (sector, (out, into)) in outs.iter().zip(ins).enumerate() {
            let sector = sector as u64 * 2;
            let wrote = driver.send(&header(1, sector), &text, 0, (out, &[])).unwrap();
            assert_eq!(
                wrote,
                Outcome {
                    status: OK,
                    read: vec![],
                    written: 1
                }
            );
            let read = driver.send(&header(0, sector), &[], 1024, (&[3], into)).unwrap();
            assert_eq!(
                read,
                Outcome {
                    status: OK,
                    read: text.clone(),
                    written: 1025
                }
            );
        }
    }

    #[test]
    fn nothing_is_done_outside_the_disk() {
        let driver = Driver::new(false);
        let last = DISK / 512 - 1;
        let data = [7; 1024];
        assert_eq!(driver.simple(1, last - 1, &data, 0).status, OK);
        for sector in [last, last + 1, u64::MAX / 512, u64::MAX / 512 + 1, u64::MAX] {
            assert_eq!(
                driver.simple(1, sector, &data, 0).status,
                IOERR,
                "write at {sector}"
            );
            let read = driver.simple(0, sector, &[], 1024);
            assert_eq!(
                read,
                Outcome {
                    status: IOERR,
                    read: vec![0xa5; 1024],
                    written: 1
                }
            );
            for kind in [11, 13] {
                let cleared = driver.simple(kind, 0, &range(sector, 2, 0), 0);
                assert_eq!(cleared.status, IOERR, "range at {sector}");
            }
        }
    }

    #[test]
    fn odd_lengths_are_errors() {
        let driver = Driver::new(false);
        assert_eq!(driver.simple(0, 0, &[], 511).status, IOERR);
        assert_eq!(driver.simple(1, 0, &[0; 513], 0).status, IOERR);
        assert_eq!(driver.simple(0, 0, &[], 0).status, OK);
    }

    #[test]
    fn identifies_itself() {
        let driver = Driver::new(false);
        let id = driver.simple(8, 0, &[], 20);
        assert_eq!((id.status, id.written), (OK, 21));
        assert_eq!(&id.read, b"serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(driver.simple(8, 0, &[], 3).read, b"ser");
        assert_eq!(driver.simple(8, 0, &[], 30).written, 21);
    }

    #[test]
    fn clears_ranges() {
        let driver = Driver::new(false);
        assert_eq!(driver.simple(1, 0, &[9; 4096], 0).status, OK);
        let two = [range(1, 1, 0), range(3, 2, 1)].concat();
        assert_eq!(driver.simple(13, 0, &two, 0).status, OK);
        let seen = driver.simple(0, 0, &[], 4096).read;
        let firsts: Vec<u8> = seen.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!(firsts, [9, 0, 9, 0, 0, 9, 9, 9]);
        assert_eq!(driver.simple(11, 0, &range(0, 1, 0), 0).status, OK);
        assert_eq!(driver.simple(11, 0, &range(0, 0, 0), 0).status, OK);
    }

    #[test]
    fn no_range_is_touched_if_one_is_wrong() {
        let driver = Driver::new(false);
        assert_eq!(driver.simple(1, 0, &[9; 512], 0).status, OK);
        for wrong in [range(DISK / 512, 1, 0), range(0, MOST_RANGE_SECTORS + 1, 0)] {
            let ranges = [range(0, 1, 0), wrong].concat();
            assert_eq!(driver.simple(13, 0, &ranges, 0).status, IOERR);
        }
        let flagged = [range(0, 1, 0), range(1, 1, 2)].concat();
        assert_eq!(driver.simple(13, 0, &flagged, 0).status, UNSUPP);
        assert_eq!(driver.simple(11, 0, &range(0, 1, 1), 0).status, UNSUPP);
        for len in [0, 1, 15, 17, 16 * 17] {
            assert_eq!(
                driver.simple(13, 0, &vec![0; len], 0).status,
                IOERR,
                "{len} bytes of ranges"
            );
        }
        assert_eq!(driver.simple(0, 0, &[], 512).read, [9; 512]);
    }

    #[test]
    fn unknown_types_are_unsupported() {
        let driver = Driver::new(false);
        for kind in [2, 3, 5, 14, 0x8000_0000, u32::MAX] {
            assert_eq!(driver.simple(kind, 0, &[], 512).status, UNSUPP, "type {kind}");
        }
    }

    #[test]
    fn read_only_refuses_changes() {
        let driver = Driver::new(true);
        assert_eq!(driver.simple(1, 0, &[0; 512], 0).status, IOERR);
        assert_eq!(driver.simple(11, 0, &range(0, 1, 0), 0).status, IOERR);
        assert_eq!(driver.simple(13, 0, &range(0, 1, 0), 0).status, IOERR);
        assert_eq!(driver.simple(4, 0, &[], 0).status, OK);
        assert_eq!(driver.simple(0, 0, &[], 512).status, OK);
    }

    #[test]
    fn a_chain_without_header_or_status_is_broken() {
        let driver = Driver::new(false);
        let buffer = |guest, len| vec![Buffer { guest, len }];
        let serve = |readable, writable| {
            driver
                .device
                .serve(&driver.memory, &Chain { readable, writable }, false)
                .map(|done| done.written)
        };
        assert!(matches!(
            serve(vec![], buffer(0x1000, 1)),
            Err(Broken::TooShort { .. })
        ));
        assert!(matches!(
            serve(buffer(0x1000, 15), buffer(0x1000, 1)),
            Err(Broken::TooShort { .. })
        ));
        assert!(matches!(
            serve(buffer(0x1000, 16), vec![]),
            Err(Broken::TooShort { .. })
        ));
        assert!(matches!(
            serve(buffer(0x1000, 16), buffer(0x1000, 0)),
            Err(Broken::TooShort { .. })
        ));
        assert!(matches!(
            serve(buffer(0, 16), buffer(0x1000, 1)),
            Err(Broken::Unmapped(_))
        ));
        assert!(matches!(
            serve(buffer(0x1000, 16), buffer(0, 1)),
            Err(Broken::Unmapped(_))
        ));
    }

    #[test]
    fn an_unmapped_buffer_is_an_error() {
        let driver = Driver::new(false);
        let mut chain = Chain {
            readable: vec![],
            writable: vec![],
        };
        chain.readable.push(Buffer {
            guest: 0x1000,
            len: 16,
        });
        chain.writable.push(Buffer { guest: 0, len: 512 });
        chain.writable.push(Buffer {
            guest: 0x2000,
            len: 1,
        });
        Bytes::new(&driver.memory, &chain.readable)
            .write(&header(0, 0))
            .unwrap();
        let done = driver.device.serve(&driver.memory, &chain, false).unwrap();
        assert_eq!(done.written, 1);
        assert!(matches!(
            done.refused,
            Some(Refusal::Disk(DiskError::Unmapped(_)))
        ));
    }
}
