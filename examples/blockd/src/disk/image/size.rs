//! The size of an image: as the system knows it, and changed.

use std::io::{self, Seek as _, SeekFrom};

use super::Image;

impl Image {
    /// The size in bytes. Can wait for a file server.
    pub(in crate::disk) fn len(&self) -> io::Result<u64> {
        if self.device.is_some() {
            // The metadata of a block device has no length. Transfers name their positions, so the file's own does not matter.
            return (&*self.file).seek(SeekFrom::End(0));
        }
        Ok(self.file.metadata()?.len())
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
