//! [`Access`]: how a disk is opened.

/// How a disk is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Writing is refused.
    pub(crate) read_only: bool,
    /// An image is locked against other users.
    pub(crate) lock: bool,
    /// An image is raw, even if it looks like another format.
    pub(crate) raw: bool,
    /// Discards release storage.
    pub(crate) discard: bool,
    /// An image is read and written past the page cache.
    pub(crate) direct: bool,
    /// Bytes of a block: the unit in which the driver is to address the disk. A multiple of a sector.
    pub(crate) block: u64,
}

impl Access {
    /// The default.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn new(read_only: bool) -> Self {
        Self {
            read_only,
            lock: true,
            raw: false,
            discard: true,
            direct: false,
            block: super::SECTOR,
        }
    }
}
