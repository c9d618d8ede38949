//! Image files and block devices: opened, read, written, flushed and cleared.

mod direct;
mod flush;
mod ring;
mod ring_file;
mod size;
mod slices;
mod state;
mod whole;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::block_device::BlockDevice;
use super::clear::{Cleared, Clearing, Stretch};
use super::format::must_be_raw;
use super::lock::{lock, once_closed};
use super::sys::discard_blocks;
use super::{Access, DiskError, SECTOR};
use crate::buffers::Bytes;
pub(crate) use direct::BUFFER_ALIGN;
use direct::{Direct, aligned};
use flush::Flushes;
pub(crate) use flush::{FlushStart, Flushing};
pub(crate) use ring_file::{RingFile, SharedWrites};
use whole::read_all;

/// The bytes of the buffer through which a file is read and written.
const BUFFER: usize = 256 * 1024;

thread_local! {
    /// The buffer of each thread that reads and writes images.
    static PASSING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Makes a hole and keeps the size.
const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// An open image. Any thread can use it.
#[derive(Debug)]
pub(super) struct Image {
    file: Arc<File>,
    /// The access past the page cache, if it is wanted.
    direct: Option<Direct>,
    /// The path, for log lines.
    path: PathBuf,
    /// The capabilities of a block device; `None` for a file.
    device: Option<BlockDevice>,
    flushes: Arc<Flushes>,
    /// Set if the file system has no reads that do not wait.
    always_waits: AtomicBool,
    /// Set once a discard without effect was logged.
    discard_reported: AtomicBool,
}

impl Image {
    /// Opens an image. Returns it and its size in bytes.
    ///
    /// # Errors
    /// If it cannot be opened, locked or read, or is not an image that can be served.
    pub(super) fn open(path: &Path, access: Access) -> io::Result<(Self, u64)> {
        // This precedes the open, because opening a pipe would wait for its other end.
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is neither a file nor a block device",
            ));
        }
        let writes = !access.read_only;
        let mut options = OpenOptions::new();
        options.read(true).write(writes);
        let exclusive = kind.is_block_device() && writes && access.lock;
        if exclusive {
            options.custom_flags(OFlags::EXCL.bits() as i32);
        }
        let is_in_use = |error: &io::Error| exclusive && error.raw_os_error() == Some(libc::EBUSY);
        let mut file = once_closed(|| options.open(path), is_in_use).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) if exclusive => io::Error::new(
                io::ErrorKind::ResourceBusy,
                "it is mounted, part of another device, or served already; end that, or name another device. ',lock=off' \
                 serves it regardless, and two writers destroy it",
            ),
            _ => error,
        })?;
        if access.lock {
            lock(&file, writes).map_err(|error| io::Error::new(io::ErrorKind::ResourceBusy, error))?;
        }
        // The metadata of a block device has no length.
        let bytes = file.seek(SeekFrom::End(0))?;
        if !access.raw {
            must_be_raw(&file, bytes)?;
        }
        let block = access.block;
        let unit = if block == SECTOR { "sector" } else { "block" };
        if bytes < block {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("it has {bytes} bytes, and a disk has at least one {unit} of {block}"),
            ));
        }
        if !bytes.is_multiple_of(block) {
            tracing::warn!(path = %path.display(), bytes, "the image's last {} bytes are not a whole {unit} and are not served",
                bytes % block);
        }
        let mut image = Self::new(file, path)?;
        if writes && image.device.is_some_and(|device| device.read_only) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the device is read-only",
            ));
        }
        if access.direct {
            image.direct = Some(Direct::open(&image.file, writes)?);
            // A direct read waits for the medium.
            image.always_waits = AtomicBool::new(true);
        }
        Ok((image, bytes))
    }

    /// Makes an image of an open file.
    pub(super) fn new(file: File, path: &Path) -> io::Result<Self> {
        let device = BlockDevice::examine(&file)?;
        Ok(Self {
            file: Arc::new(file),
            direct: None,
            path: path.to_owned(),
            device,
            flushes: Arc::new(Flushes::new(path)),
            always_waits: AtomicBool::default(),
            discard_reported: AtomicBool::default(),
        })
    }

    pub(super) fn read(&self, at: u64, into: Bytes<'_>) -> Result<(), DiskError> {
        Self::in_parts(at, into, |buffer, at, part| {
            self.read_part(buffer, at)?;
            Ok(part.write(buffer)?)
        })
    }

    /// Reads data that are in the page cache.
    pub(super) fn read_now(&self, at: u64, into: Bytes<'_>) -> Result<(), DiskError> {
        if self.always_waits.load(Ordering::Relaxed) {
            return Err(DiskError::WouldWait);
        }
        Self::in_parts(at, into, |buffer, at, part| {
            let flags = ReadWriteFlags::NOWAIT;
            match preadv2(&self.file, &mut [IoSliceMut::new(buffer)], at, flags) {
                Ok(count) if count == buffer.len() => Ok(part.write(buffer)?),
                // A part of the data is there, or the file is shorter now. A read that may wait finds out
                // which.
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Err(DiskError::WouldWait),
                Err(_) => {
                    self.always_waits.store(true, Ordering::Relaxed);
                    Err(DiskError::WouldWait)
                }
            }
        })
    }

    pub(super) fn write(&self, at: u64, from: Bytes<'_>) -> Result<(), DiskError> {
        Self::in_parts(at, from, |buffer, at, part| {
            part.read(buffer)?;
            Ok(self.write_part(buffer, at)?)
        })
    }

    /// Fills an aligned buffer.
    fn read_part(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let read = self.direct.as_ref().and_then(|direct| direct.read(buffer, at));
        read.unwrap_or_else(|| read_all(&self.file, buffer, at))
    }

    /// Writes an aligned buffer.
    fn write_part(&self, buffer: &[u8], at: u64) -> io::Result<()> {
        let written = self.direct.as_ref().and_then(|direct| direct.write(buffer, at));
        written.unwrap_or_else(|| {
            let _alone = self.direct.as_ref().map(Direct::exclude);
            self.file.write_all_at(buffer, at)
        })
    }

    /// Calls `each` for every part of `all`, with an aligned buffer of the part's length and the part's
    /// position.
    fn in_parts(
        mut at: u64,
        all: Bytes<'_>,
        mut each: impl FnMut(&mut [u8], u64, Bytes<'_>) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        PASSING.with_borrow_mut(|buffer| {
            let mut rest = all;
            while !rest.is_empty() {
                let count = rest.len().min(BUFFER as u64);
                let Some((part, after)) = rest.split_at(count) else {
                    return Ok(());
                };
                let len = count as usize;
                if buffer.len() < len + BUFFER_ALIGN {
                    buffer.resize(len + BUFFER_ALIGN, 0);
                }
                each(aligned(buffer, len), at, part)?;
                at += count;
                rest = after;
            }
            Ok(())
        })
    }

    /// Writes all data to the medium. See [`Flushes::flush`].
    pub(super) fn flush(&self) -> Result<(), DiskError> {
        self.flushes.flush(&self.file)
    }

    /// Begins a flush on the ring.
    pub(super) fn begin_flush(&self) -> FlushStart {
        self.flushes.begin(self.file())
    }

    /// Returns `false` if a discard can have no effect.
    pub(super) fn can_discard(&self) -> bool {
        self.device.is_none_or(|device| device.can_discard)
    }

    /// Releases the storage of the beginning of the range. If the system refuses, the contents stay, and that
    /// is not an error.
    pub(super) fn discard(&self, at: u64, len: u64) -> Cleared {
        let Some(stretch) = self.next_to_release(self.clearing(at, len)) else {
            return Cleared::nothing(len);
        };
        let discarded = match self.device {
            Some(_) => discard_blocks(&self.file, stretch.from, stretch.len),
            None => allocate(&self.file, HOLE, stretch.from, stretch.len),
        };
        if let Err(error) = discarded {
            self.report_discard(&error);
        }
        stretch.cleared(at)
    }

    /// Logs once that the system refuses to discard.
    pub(super) fn report_discard(&self, error: &io::Error) {
        if !self.discard_reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(path = %self.path.display(), %error, "discards have no effect on this image");
        }
    }

    /// Zeroes the beginning of the range. `unmap` allows to release its storage.
    ///
    /// If the system refuses to release or zero a range, for any reason, zeroes are written.
    pub(super) fn write_zeroes(&self, at: u64, len: u64, unmap: bool) -> io::Result<Cleared> {
        let step = self.clearing(at, len);
        if unmap
            && let Some(stretch) = self.next_to_release(step)
            && stretch.from == at
            && self.unmap(at, stretch.len)
        {
            return Ok(stretch.cleared(at));
        }
        if let Some(stretch) = step.middle()
            && stretch.from == at
            && self.zero_quickly(at, stretch.len)
        {
            return Ok(stretch.cleared(at));
        }
        let _alone = self.direct.as_ref().map(Direct::exclude);
        Cleared::by_writing(at, step.write_len(true), |at, zeroes| {
            self.file.write_all_at(zeroes, at)
        })
    }

    pub(super) fn clearing(&self, at: u64, len: u64) -> Clearing {
        Clearing::new(at, len, self.device.map_or(1, |device| device.block))
    }

    /// Returns the whole units that the next step releases: more than usual if the file has a hole there.
    fn next_to_release(&self, step: Clearing) -> Option<Stretch> {
        let usual = step.middle()?;
        if self.device.is_some() || !step.is_longer_than(usual.len) {
            return Some(usual);
        }
        step.hole(self.next_data(usual.from)).or(Some(usual))
    }

    /// Returns the position of the first data at or after byte `at`.
    fn next_data(&self, at: u64) -> u64 {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // There is no data up to the end.
            Err(Errno::NXIO) => u64::MAX,
            Err(_) => at,
        }
    }

    /// Makes a hole. Returns `false` if the system refuses.
    fn unmap(&self, at: u64, len: u64) -> bool {
        // A hole beyond the end of a truncated file would not extend it. A write does.
        let is_inside =
            || self.device.is_some() || self.file.metadata().is_ok_and(|about| about.len() >= at + len);
        is_inside() && allocate(&self.file, HOLE, at, len).is_ok()
    }

    /// Returns `true` if zeroing is left to the system. If a block device cannot zero, the kernel would write
    /// all zeroes in one call.
    pub(super) fn zeroes_quickly(&self) -> bool {
        self.device.is_none_or(|device| device.can_zero)
    }

    /// Zeroes whole units without a transfer. Returns `false` if the system refuses.
    fn zero_quickly(&self, at: u64, len: u64) -> bool {
        self.zeroes_quickly() && allocate(&self.file, FallocateFlags::ZERO_RANGE, at, len).is_ok()
    }
}

/// Changes the allocation of a range of a file.
fn allocate(file: &File, how: FallocateFlags, at: u64, len: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, how, at, len) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
