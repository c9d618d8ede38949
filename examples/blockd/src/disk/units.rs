//! The units of disks.

/// The most bytes that a step moves. Other work is measured in bytes whose transfer takes as long.
pub(crate) const STEP: u64 = 1024 * 1024;

/// The bytes of a sector: the unit in which virtio addresses a disk of any block size.
pub(crate) const SECTOR: u64 = 512;
