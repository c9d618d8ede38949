//! Access to an image past the page cache (`O_DIRECT`).
//!
//! The system accepts only positions, lengths and buffers at multiples of a block. All other transfers go
//! through the page cache. Such a write fills the rest of its page from the medium, and later writes the page
//! back, so a direct write to the same page meanwhile would be lost. Therefore a write through the page cache
//! excludes all direct ones. The system writes changed pages back before a direct transfer.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Arc;

use parking_lot::{ArcRwLockReadGuard, RawRwLock, RwLock, RwLockWriteGuard};
use rustix::fs::{AtFlags, OFlags, StatxFlags};

use super::whole::read_all;

/// The alignment of all buffers, which is enough for every file system.
pub(crate) const BUFFER_ALIGN: usize = 4096;
/// The unit of files whose file system does not report one.
const USUAL_UNIT: u64 = 4096;

/// A second descriptor of an image, for direct access.
#[derive(Debug)]
pub(super) struct Direct {
    file: Arc<File>,
    /// The unit of positions and lengths in bytes.
    unit: u64,
    /// The lock that direct writes share and that other writes hold exclusively.
    writes: Arc<RwLock<()>>,
}

impl Direct {
    /// Opens an image again.
    ///
    /// # Errors
    /// If the file system has no direct access; with the remedy.
    pub(super) fn open(image: &File, writes: bool) -> io::Result<Self> {
        // This path opens the same file, even if its own path names another one by now.
        let path = format!("/proc/self/fd/{}", image.as_raw_fd());
        let file = OpenOptions::new()
            .read(true)
            .write(writes)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EINVAL) => io::Error::new(
                    io::ErrorKind::Unsupported,
                    "its file system has no direct access; leave out ',cache=none', or move the image to another file system",
                ),
                _ => error,
            })?;
        let unit = unit(&file);
        Ok(Self {
            file: Arc::new(file),
            unit,
            writes: Arc::default(),
        })
    }

    /// Fills a buffer that is aligned to [`BUFFER_ALIGN`]. Returns `None` if the system accepts this read
    /// only through the page cache.
    pub(super) fn read(&self, buffer: &mut [u8], at: u64) -> Option<io::Result<()>> {
        if !self.is_aligned(at, buffer.len()) {
            return None;
        }
        match read_all(&self.file, buffer, at) {
            // This happens also if a file that was truncated ends within a unit.
            Err(error) if is_misaligned(&error) => None,
            read => Some(read),
        }
    }

    /// Writes a buffer that is aligned to [`BUFFER_ALIGN`]. Returns `None` if the system accepts this write
    /// only through the page cache.
    pub(super) fn write(&self, buffer: &[u8], at: u64) -> Option<io::Result<()>> {
        if !self.is_aligned(at, buffer.len()) {
            return None;
        }
        let _shared = self.writes.read();
        match self.file.write_all_at(buffer, at) {
            Err(error) if is_misaligned(&error) => None,
            written => Some(written),
        }
    }

    /// Excludes direct writes during the lifetime of the guard, for a write through the page cache.
    pub(super) fn exclude(&self) -> RwLockWriteGuard<'_, ()> {
        self.writes.write()
    }

    /// Returns the file, if a ring can transfer this range directly, in memory whose addresses and lengths
    /// are multiples of `alignment`.
    pub(super) fn ring_file(&self, at: u64, len: u64, alignment: u64) -> Option<Arc<File>> {
        let is_aligned = [at, len, alignment]
            .iter()
            .all(|number| number.is_multiple_of(self.unit));
        is_aligned.then(|| self.file.clone())
    }

    /// Shares the right to write directly, without waiting. Returns `None` while a write through the page
    /// cache holds the lock or waits for it.
    pub(super) fn try_share(&self) -> Option<ArcRwLockReadGuard<RawRwLock, ()>> {
        self.writes.try_read_arc()
    }

    fn is_aligned(&self, at: u64, len: usize) -> bool {
        at.is_multiple_of(self.unit) && (len as u64).is_multiple_of(self.unit)
    }
}

/// Returns the unit of positions and lengths.
fn unit(file: &File) -> u64 {
    let about = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let reported = about.ok().and_then(|about| {
        let is_known = about.stx_mask & StatxFlags::DIOALIGN.bits() != 0 && about.stx_dio_offset_align > 0;
        is_known.then(|| about.stx_dio_offset_align.max(about.stx_dio_mem_align))
    });
    let of_device = || rustix::fs::ioctl_blksszget(file).ok();
    reported.or_else(of_device).map_or(USUAL_UNIT, u64::from)
}

/// Returns `true` if the error means that the system refuses the position, the length or the buffer.
fn is_misaligned(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// Returns the aligned part of a buffer of at least `len` + [`BUFFER_ALIGN`] bytes.
pub(super) fn aligned(buffer: &mut [u8], len: usize) -> &mut [u8] {
    let from = buffer.as_ptr().align_offset(BUFFER_ALIGN);
    &mut buffer[from..from + len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c28_buffers_are_aligned() {
        let mut buffer = vec![0; 3 * BUFFER_ALIGN];
        for skip in 0..BUFFER_ALIGN {
            let part = aligned(&mut buffer[skip..], BUFFER_ALIGN);
            assert!(part.as_ptr().addr().is_multiple_of(BUFFER_ALIGN));
            assert_eq!(part.len(), BUFFER_ALIGN);
        }
    }
}
