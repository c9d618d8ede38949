//! [`Access`]: the options for opening a disk.

/// The options for opening a disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Refuse writes.
    pub(crate) read_only: bool,
    /// Lock an image against other users.
    pub(crate) lock: bool,
    /// Serve an image as raw, even if it looks like another format.
    pub(crate) raw: bool,
    /// Release storage on discards.
    pub(crate) discard: bool,
    /// Read and write an image past the page cache.
    pub(crate) direct: bool,
    /// The bytes of a block: the unit in which the driver is to address the disk. A multiple of a sector.
    pub(crate) block: u64,
}

impl Access {
    /// Returns the default options.
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
