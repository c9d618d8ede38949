//! The size of an image: as the system knows it, and changed.

use std::io::{self, Seek as _, SeekFrom};

use rustix::fs::{AtFlags, StatxFlags};

use super::Image;

impl Image {
    /// The size in bytes, as far as the system knows it without waiting for a file server.
    pub(in crate::disk) fn len_now(&self) -> io::Result<u64> {
        self.len_with(AtFlags::STATX_DONT_SYNC)
    }

    /// The size in bytes. Can wait for a file server.
    pub(in crate::disk) fn len(&self) -> io::Result<u64> {
        self.len_with(AtFlags::STATX_FORCE_SYNC)
    }

    fn len_with(&self, sync: AtFlags) -> io::Result<u64> {
        if self.device.is_some() {
            // The metadata of a block device has no length. Transfers name their positions, so the file's own does not matter.
            return (&self.file).seek(SeekFrom::End(0));
        }
        let flags = AtFlags::EMPTY_PATH | sync;
        Ok(rustix::fs::statx(&self.file, "", flags, StatxFlags::SIZE)?.stx_size)
    }

    /// Extends or truncates a file. Can wait for the medium.
    pub(in crate::disk) fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    /// Whether it is a block device, whose size this program cannot set.
    pub(in crate::disk) fn is_device(&self) -> bool {
        self.device.is_some()
    }
}
