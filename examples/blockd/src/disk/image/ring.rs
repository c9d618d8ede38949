//! The files with which a ring transfers data of an image.

use aio_context::SharedFd;

use super::{Image, RingFile, SharedWrites};

impl Image {
    /// Returns a reference to the file, through the page cache.
    pub(in crate::disk) fn file(&self) -> SharedFd {
        self.file.clone().into()
    }

    pub(in crate::disk) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// See [`Disk::ring_file`](crate::disk::Disk::ring_file).
    pub(in crate::disk) fn ring_file(
        &self,
        writes: bool,
        at: u64,
        len: u64,
        alignment: u64,
    ) -> Option<RingFile> {
        let Some(direct) = &self.direct else {
            let (file, shared) = (self.file(), None);
            return Some(RingFile { file, shared });
        };
        let file = direct.ring_file(at, len, alignment)?.into();
        let shared = if writes {
            Some(SharedWrites::new(direct.try_share()?))
        } else {
            None
        };
        Some(RingFile { file, shared })
    }

    /// Calls `during` while direct writes are excluded, as a write through the page cache does.
    #[cfg(test)]
    pub(in crate::disk) fn while_excluded(&self, during: impl FnOnce()) {
        let _alone = self.direct.as_ref().map(super::Direct::exclude);
        during();
    }
}
