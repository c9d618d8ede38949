//! Two system calls that have no safe face: giving back pages of a mapping, and discarding blocks of a device.
#![allow(unsafe_code, reason = "one ioctl, and one madvise of memory of our own")]

use std::fs::File;
use std::io;

use rustix::ioctl::{Setter, ioctl, opcode};
use rustix::mm::{Advice, madvise};
use vm_memory::{MmapRegion, VolatileMemory};

/// `BLKDISCARD` of linux/fs.h: a pointer to first byte and number of bytes.
const BLKDISCARD: u32 = opcode::none(0x12, 119);

/// Gives the pages of private anonymous memory back to the system; they read as zeroes from then on. Both numbers are
/// multiples of the page size.
pub(super) fn give_back(map: &MmapRegion, at: usize, len: usize) -> io::Result<()> {
    let pages = map.get_slice(at, len).map_err(io::Error::other)?;
    // SAFETY: the slice lies within the mapping, which outlives the call. The memory is anonymous, private and accessed
    // through volatile slices only: no reference to it exists that would notice that its bytes become zero.
    unsafe { madvise(pages.ptr_guard_mut().as_ptr().cast(), len, Advice::LinuxDontNeed) }?;
    Ok(())
}

/// Tells a block device that the contents of a range do not matter any more. Both numbers are multiples of its logical
/// block size.
pub(super) fn discard_blocks(device: &File, at: u64, len: u64) -> io::Result<()> {
    // SAFETY: BLKDISCARD reads two 64-bit numbers through its argument and writes nothing.
    unsafe { ioctl(device, Setter::<BLKDISCARD, [u64; 2]>::new([at, len])) }?;
    Ok(())
}
