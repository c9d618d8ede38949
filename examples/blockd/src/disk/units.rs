//! The units of disks.

/// The bytes that a step moves at most. Other work is measured in bytes whose transfer takes as long.
pub(crate) const STEP: u64 = 1024 * 1024;

/// Bytes of a sector: the unit in which virtio addresses a disk, whatever its block size.
pub(crate) const SECTOR: u64 = 512;
