//! The size of an image: queried from the system, and changed.

use std::io::{self, Seek as _, SeekFrom};

use super::Image;

impl Image {
    /// Returns the size in bytes. May wait for a file server.
    pub(in crate::disk) fn len(&self) -> io::Result<u64> {
        if self.device.is_some() {
            // The metadata of a block device has no length. Transfers name their positions, so moving the
            // file's position has no effect on them.
            return (&*self.file).seek(SeekFrom::End(0));
        }
        Ok(self.file.metadata()?.len())
    }

    /// Extends or truncates a file. May wait for the medium.
    pub(in crate::disk) fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    /// Returns `true` for a block device, whose size this program cannot set.
    pub(in crate::disk) fn is_device(&self) -> bool {
        self.device.is_some()
    }
}
