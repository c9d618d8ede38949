//! Image files and block devices: opened, read, written, flushed and cleared.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::block_device::BlockDevice;
use super::clear::{Cleared, Clearing, Stretch, ZEROES};
use super::format::must_be_raw;
use super::lock::lock;
use super::sys::discard_blocks;
use super::{Access, DiskError, SECTOR};
use crate::chain::Bytes;

/// Bytes of the buffer through which a file is read and written.
const BUFFER: usize = 256 * 1024;

/// Makes a hole and leaves the size as it is.
const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// An open image.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    /// For messages.
    path: PathBuf,
    /// What a block device can do; `None` for a file.
    device: Option<BlockDevice>,
    buffer: RefCell<Vec<u8>>,
    /// A flush has failed: what had been written before may be lost, and no later flush can tell.
    flush_failed: Cell<bool>,
    /// The log says that a discard had no effect.
    discard_reported: Cell<bool>,
}

impl Image {
    /// Opens it, and how many bytes it has.
    ///
    /// # Errors
    /// What the system says to opening, locking and reading, or that it cannot be served.
    pub(super) fn open(path: &Path, access: Access) -> io::Result<(Self, u64)> {
        // Opening a pipe would wait for its other end.
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
        let mut file = options.open(path).map_err(|error| match error.raw_os_error() {
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
        // A block device has no length but an end.
        let bytes = file.seek(SeekFrom::End(0))?;
        if !access.raw {
            must_be_raw(&file, bytes)?;
        }
        if bytes < SECTOR {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("it has {bytes} bytes, and a disk has at least one sector of {SECTOR}"),
            ));
        }
        if !bytes.is_multiple_of(SECTOR) {
            tracing::warn!(path = %path.display(), bytes, "the image's last {} bytes are no whole sector and not offered",
                bytes % SECTOR);
        }
        let image = Self::new(file, path)?;
        if writes && image.device.is_some_and(|device| device.read_only) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the device is read-only",
            ));
        }
        Ok((image, bytes))
    }

    /// An image that is open already.
    pub(super) fn new(file: File, path: &Path) -> io::Result<Self> {
        let device = BlockDevice::examine(&file)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            device,
            buffer: RefCell::default(),
            flush_failed: Cell::default(),
            discard_reported: Cell::default(),
        })
    }

    pub(super) fn read(&self, at: u64, into: Bytes<'_>) -> Result<(), DiskError> {
        self.in_parts(at, into, |buffer, at, part| {
            read_all(&self.file, buffer, at)?;
            Ok(part.write(buffer)?)
        })
    }

    pub(super) fn write(&self, at: u64, from: Bytes<'_>) -> Result<(), DiskError> {
        self.in_parts(at, from, |buffer, at, part| {
            part.read(buffer)?;
            Ok(self.file.write_all_at(buffer, at)?)
        })
    }

    /// Calls `each` with a buffer, a position and the stretch of `all` that belongs there.
    fn in_parts(
        &self,
        mut at: u64,
        all: Bytes<'_>,
        mut each: impl FnMut(&mut [u8], u64, Bytes<'_>) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let mut buffer = self.buffer.borrow_mut();
        let mut rest = all;
        while !rest.is_empty() {
            let count = rest.len().min(BUFFER as u64);
            let Some((part, after)) = rest.split_at(count) else {
                return Ok(());
            };
            if buffer.len() < count as usize {
                buffer.resize(count as usize, 0);
            }
            each(&mut buffer[..count as usize], at, part)?;
            at += count;
            rest = after;
        }
        Ok(())
    }

    /// Has the system write everything to the medium.
    ///
    /// After a failure the system drops the data that it could not write, and reports success the next time. So once a
    /// flush has failed, all later ones fail as well, until the image is opened anew.
    pub(super) fn flush(&self) -> Result<(), DiskError> {
        if self.flush_failed.get() {
            return Err(DiskError::FlushFailed);
        }
        let Err(error) = self.file.sync_data() else {
            return Ok(());
        };
        self.flush_failed.set(true);
        tracing::error!(path = %self.path.display(), %error,
            "a flush failed, and data written since the one before may be lost; every flush of this image fails from now on. \
             Check the medium and the image, then restart the daemon");
        Err(error.into())
    }

    /// Whether a discard may have an effect.
    pub(super) fn can_discard(&self) -> bool {
        self.device.is_none_or(|device| device.can_discard)
    }

    /// Gives back the beginning of the range. If that does not work, the contents stay, which is no error.
    pub(super) fn discard(&self, at: u64, len: u64) -> Cleared {
        let Some(stretch) = self.next_to_give_back(self.clearing(at, len)) else {
            return Cleared::nothing(len);
        };
        let discarded = match self.device {
            Some(_) => discard_blocks(&self.file, stretch.from, stretch.len),
            None => allocate(&self.file, HOLE, stretch.from, stretch.len),
        };
        if let Err(error) = discarded
            && !self.discard_reported.replace(true)
        {
            tracing::warn!(path = %self.path.display(), %error, "discards have no effect on this image");
        }
        stretch.cleared(at)
    }

    /// Zeroes the beginning of the range; `unmap` allows to give it back.
    ///
    /// If the system refuses the quick ways, for whatever reason, zeroes are written, and the result of that counts.
    pub(super) fn write_zeroes(&self, at: u64, len: u64, unmap: bool) -> io::Result<Cleared> {
        let step = self.clearing(at, len);
        if unmap
            && let Some(stretch) = self.next_to_give_back(step)
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
        let count = step.by_hand(true);
        let mut done = 0;
        while done < count {
            let part = (count - done).min(ZEROES.len() as u64);
            self.file.write_all_at(&ZEROES[..part as usize], at + done)?;
            done += part;
        }
        Ok(Cleared::by_hand(count))
    }

    fn clearing(&self, at: u64, len: u64) -> Clearing {
        Clearing::new(at, len, self.device.map_or(1, |device| device.block))
    }

    /// The whole units that the next step gives back: many at once, where a file has a hole already.
    fn next_to_give_back(&self, step: Clearing) -> Option<Stretch> {
        let usual = step.middle()?;
        if self.device.is_some() || !step.is_longer_than(usual.len) {
            return Some(usual);
        }
        step.hole(self.next_data(usual.from)).or(Some(usual))
    }

    /// Where the file has data, from a byte on.
    fn next_data(&self, at: u64) -> u64 {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // There is none up to the end.
            Err(Errno::NXIO) => u64::MAX,
            Err(_) => at,
        }
    }

    /// Makes a hole; false if the system refuses.
    fn unmap(&self, at: u64, len: u64) -> bool {
        // A hole behind the end would not make a shrunk file longer, as writing does.
        let is_inside =
            || self.device.is_some() || self.file.metadata().is_ok_and(|about| about.len() >= at + len);
        is_inside() && allocate(&self.file, HOLE, at, len).is_ok()
    }

    /// Zeroes whole units without writing them; false if the system refuses.
    fn zero_quickly(&self, at: u64, len: u64) -> bool {
        // Of a block device that cannot zero by itself, the kernel would write all of it in one go.
        let is_quick = self.device.is_none_or(|device| device.can_zero);
        is_quick && allocate(&self.file, FallocateFlags::ZERO_RANGE, at, len).is_ok()
    }
}

/// Reads all of `target`. Where a file has become shorter than it was, that is an error: zeroes would be wrong.
fn read_all(file: &File, target: &mut [u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < target.len() {
        match file.read_at(&mut target[done..], at + done as u64) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it has become shorter than it was when it was opened",
                ));
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Changes how a range of a file is allocated.
fn allocate(file: &File, how: FallocateFlags, at: u64, len: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, how, at, len) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
