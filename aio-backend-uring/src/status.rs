//! [`Status`]: the memory for the kernel's data about a file.

use std::io;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use rustix::io::Errno;

/// `STATX_SIZE`.
const SIZE: u32 = 0x200;
/// `AT_EMPTY_PATH`: the descriptor itself is the file.
const EMPTY_PATH: i32 = 0x1000;

/// The memory of a `struct statx`: 256 bytes. The kernel writes to it until its request has completed.
#[derive(Debug, Default)]
#[repr(C, align(8))]
pub(crate) struct Status {
    mask: u32,
    _block: u32,
    _others: [u64; 4],
    size: u64,
    _rest: [u64; 26],
}

const _: () = assert!(size_of::<Status>() == 256 && std::mem::offset_of!(Status, size) == 40);

impl Status {
    /// Returns the request for the size of a file.
    pub(crate) fn request(&mut self, file: types::Fd) -> Entry {
        let to: *mut Self = self;
        opcode::Statx::new(file, c"".as_ptr(), to.cast())
            .flags(EMPTY_PATH)
            .mask(SIZE)
            .build()
    }

    /// Returns the size in bytes, once the request has completed.
    pub(crate) fn size(&self) -> io::Result<usize> {
        let is_known = self.mask & SIZE != 0;
        let size = usize::try_from(self.size).ok().filter(|_| is_known);
        size.ok_or_else(|| Errno::OVERFLOW.into())
    }
}
