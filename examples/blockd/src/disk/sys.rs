//! System calls without a safe interface: making pages of a mapping accessible, releasing them, and discarding blocks of a
//! device.
#![allow(
    unsafe_code,
    reason = "one ioctl, and one madvise and one mprotect of memory of our own"
)]

use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use rustix::mm::{Advice, MprotectFlags, madvise, mprotect};
use vm_memory::{MmapRegion, VolatileMemory};

/// `BLKDISCARD` of linux/fs.h: a pointer to first byte and number of bytes.
const BLKDISCARD: Opcode = opcode::none(0x12, 119);

/// Releases pages of private anonymous memory. They read as zeroes from then on. Both numbers are multiples
/// of the page size.
pub(super) fn release_pages(map: &MmapRegion, at: usize, len: usize) -> io::Result<()> {
    let pages = map.get_slice(at, len).map_err(io::Error::other)?;
    // SAFETY: the slice lies within the mapping, which outlives the call. The memory is anonymous, private and accessed
    // through volatile slices only: no reference to it exists, so its bytes may become zero at any time.
    unsafe { madvise(pages.ptr_guard_mut().as_ptr().cast(), len, Advice::LinuxDontNeed) }?;
    Ok(())
}

/// Makes the first `len` bytes of a mapping of private anonymous memory accessible. Bytes that were inaccessible are zero.
pub(super) fn make_accessible(map: &MmapRegion, len: usize) -> io::Result<()> {
    let pages = map.get_slice(0, len).map_err(io::Error::other)?;
    let access = MprotectFlags::READ | MprotectFlags::WRITE;
    // SAFETY: the slice lies within the mapping, which outlives the call and begins at a page. Wider access
    // rights to memory make no access to it invalid.
    unsafe { mprotect(pages.ptr_guard_mut().as_ptr().cast(), len, access) }?;
    Ok(())
}

/// Discards a range of a block device. Its contents are undefined afterwards. Both numbers are multiples of its logical
/// block size.
pub(super) fn discard_blocks(device: &File, at: u64, len: u64) -> io::Result<()> {
    // SAFETY: BLKDISCARD reads two 64-bit numbers through its argument and writes nothing.
    unsafe { ioctl(device, Setter::<BLKDISCARD, [u64; 2]>::new([at, len])) }?;
    Ok(())
}
