//! [`DirtyLog`]: the pages of guest memory that the device has written, for a client that migrates its guest.
//!
//! The client shares a bitmap with a bit for each page of guest memory. It copies the guest's memory while
//! the guest runs, and copies marked pages again. So the device marks a page after it has written it: the
//! client could take an earlier mark, and copy the page, before the write.

use std::fs::File;
use std::sync::atomic::{AtomicU8, Ordering};

use vm_memory::VolatileMemory as _;

use crate::memory::{Mapping, MemoryError, map_file};

/// Bytes of guest memory for each bit.
const PAGE: u64 = 4096;

/// A bitmap in memory of the client.
#[derive(Debug)]
pub(crate) struct DirtyLog {
    map: Mapping,
}

impl DirtyLog {
    /// Maps the bitmap of `len` bytes that begins at `offset` of a file.
    ///
    /// # Errors
    /// [`MemoryError`] if the file is shorter, or the system refuses to map it.
    pub(crate) fn map(file: File, offset: u64, len: u64) -> Result<Self, MemoryError> {
        let map = map_file(file, offset, len)?;
        Ok(Self { map })
    }

    /// Marks the pages of a range of guest addresses. Pages without a bit are not marked.
    pub(crate) fn mark(&self, guest: u64, len: u64) {
        if len == 0 {
            return;
        }
        let last = guest.saturating_add(len - 1) / PAGE;
        for page in guest / PAGE..=last {
            let byte = usize::try_from(page / 8).ok();
            let Some(Ok(byte)) = byte.map(|byte| self.map.get_atomic_ref::<AtomicU8>(byte)) else {
                return;
            };
            // The release makes the contents of the page visible to a client that takes the mark.
            byte.fetch_or(1 << (page % 8), Ordering::Release);
        }
    }

    /// Returns `true` if the bitmap has lost pages, and their marks with them.
    pub(crate) fn is_lost(&self) -> bool {
        self.map.is_lost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::file;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn c26_each_page_that_a_range_touches_is_marked() {
        let bitmap = file(0x2000);
        let log = DirtyLog::map(bitmap.try_clone().unwrap(), 0x1000, 0x1000).unwrap();
        let marked = || {
            let mut bytes = [0; 0x1000];
            bitmap.read_exact_at(&mut bytes, 0x1000).unwrap();
            bitmap.write_all_at(&[0; 0x1000], 0x1000).unwrap();
            (0..0x8000_u64)
                .filter(|page| bytes[*page as usize / 8] & 1 << (page % 8) != 0)
                .collect::<Vec<_>>()
        };
        for (guest, len, pages) in [
            (0, 0, &[][..]),
            (0, 1, &[0][..]),
            (4095, 1, &[0]),
            (4095, 2, &[0, 1]),
            (9 * 4096, 3 * 4096, &[9, 10, 11]),
            (0x7fff * 4096, 4096, &[0x7fff]),
            (0x7fff * 4096, 8192, &[0x7fff]),
            (0x8000 * 4096, 4096, &[]),
            (u64::MAX, u64::MAX, &[]),
        ] {
            log.mark(guest, len);
            assert_eq!(marked(), pages, "{len} at {guest:#x}");
        }
    }

    #[test]
    fn c26_a_bitmap_that_is_none_is_refused() {
        assert!(matches!(
            DirtyLog::map(file(0x1000), 0, 0x1001),
            Err(MemoryError::FileTooShort { .. })
        ));
        assert!(matches!(
            DirtyLog::map(file(0x1000), 0, 0),
            Err(MemoryError::NoRange { .. })
        ));
        assert!(DirtyLog::map(file(0x2000), 0x800, 0x1000).is_err());
        assert!(matches!(
            DirtyLog::map(file(0x1000), u64::MAX, 0x1000),
            Err(MemoryError::NoRange { .. })
        ));
    }
}
