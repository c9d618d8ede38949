//! The client's memory: the regions that it shares, mapped into the daemon, and the translation of its addresses.
//!
//! A [`Memory`] does not change: when the client adds or removes a region, the queues switch to a new value.
//! It gives no reference into shared memory, only volatile and atomic access within a region's bounds.

use std::fs::File;
use std::ops::Deref;
use std::sync::Arc;

use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use crate::sigbus::Protection;

/// The most regions of a client, the same as with QEMU: DIMMs and parts of a virtio-mem device. Each costs a
/// mapping and a descriptor.
pub(crate) const MOST_REGIONS: usize = 509;

/// The reason for which a region was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    /// The region is empty, or its end exceeds 64 bits.
    #[error("a memory region at {at:#x} of {len:#x} bytes is not a valid range of addresses")]
    NoRange {
        /// The guest address.
        at: u64,
        /// The number of bytes.
        len: u64,
    },
    /// The file is shorter than the region. An access beyond its end would raise SIGBUS.
    #[error("a memory region needs {needed:#x} bytes of its file, which has {has:#x}")]
    FileTooShort {
        /// The offset plus the length of the region.
        needed: u64,
        /// The length of the file.
        has: u64,
    },
    /// The region overlaps another one.
    #[error("a memory region at {at:#x} overlaps another one")]
    Overlap {
        /// The guest address.
        at: u64,
    },
    /// There are too many regions.
    #[error("more than {MOST_REGIONS} memory regions")]
    TooMany,
    /// There is no such region.
    #[error("there is no memory region at {at:#x}")]
    Unknown {
        /// The guest address.
        at: u64,
    },
    /// The system refuses to map the region.
    #[error("cannot map a memory region")]
    Map(#[source] vm_memory::mmap::MmapRegionError),
    /// A process serves the region's file system, and may never deliver a page.
    #[error(
        "a memory region lies on a FUSE file system, which can withhold its pages; use a memfd, tmpfs or huge pages"
    )]
    Withheld,
    /// The region consists of huge pages and does not begin and end with one. The system would refuse to
    /// unmap it.
    #[error("a memory region of huge pages must begin and end at multiples of {page:#x} bytes of its file")]
    HugePages {
        /// The bytes of a page.
        page: u64,
    },
    /// A SIGBUS for the region's pages would not be handled.
    #[error("cannot handle SIGBUS for a memory region")]
    Protect(#[source] std::io::Error),
    /// The system does not return the length of the file.
    #[error("cannot examine the file of a memory region")]
    Examine(#[source] std::io::Error),
}

/// The position of a region: in guest memory, in the client's process, and in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The guest's physical address, which descriptors use.
    pub(crate) guest: u64,
    /// The client's virtual address. Ring addresses are of this kind.
    pub(crate) user: u64,
    /// The number of bytes.
    pub(crate) len: u64,
    /// The offset of the region in the file.
    pub(crate) offset: u64,
}

#[derive(Clone, Debug)]
struct Region {
    guest: u64,
    user: u64,
    len: u64,
    map: Arc<Mapping>,
}

/// Mapped memory. The process survives a loss of its pages. The protection is dropped before the mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    protection: Protection,
    map: MmapRegion,
}

impl Mapping {
    /// Returns `true` if the mapping has lost pages and has empty ones instead.
    pub(crate) fn is_lost(&self) -> bool {
        self.protection.is_lost()
    }
}

impl Deref for Mapping {
    type Target = MmapRegion;

    #[inline]
    fn deref(&self) -> &MmapRegion {
        &self.map
    }
}

/// A part of one region that stays mapped during the lifetime of this value, such as a queue's ring.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    pub(crate) map: Arc<Mapping>,
    pub(crate) at: usize,
}

/// All regions that the client shares at the same time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// The regions in the order of their guest addresses. They do not overlap.
    regions: Vec<Region>,
}

impl Memory {
    /// Returns the same regions and one more, which is mapped from `file`.
    ///
    /// # Errors
    /// [`MemoryError`] if the region is invalid or the system refuses to map it.
    pub(crate) fn with(&self, place: Place, file: File) -> Result<Self, MemoryError> {
        let Place {
            guest,
            user,
            len,
            offset,
        } = place;
        let ends = [guest, user].map(|from| from.checked_add(len));
        let [Some(guest_end), Some(_)] = ends else {
            return Err(MemoryError::NoRange { at: guest, len });
        };
        if self.regions.len() >= MOST_REGIONS {
            return Err(MemoryError::TooMany);
        }
        if self
            .regions
            .iter()
            .any(|other| guest < other.guest + other.len && other.guest < guest_end)
        {
            return Err(MemoryError::Overlap { at: guest });
        }
        let map = map_file(file, offset, len)?;
        let region = Region {
            guest,
            user,
            len,
            map: Arc::new(map),
        };
        let mut more = self.clone();
        let at = more.regions.partition_point(|other| other.guest < guest);
        more.regions.insert(at, region);
        Ok(more)
    }

    /// Returns the same regions without the one at `place`. The offset of `place` in the file is ignored.
    ///
    /// # Errors
    /// [`MemoryError::Unknown`] if there is none.
    pub(crate) fn without(&self, place: Place) -> Result<Self, MemoryError> {
        let same = |region: &Region| {
            region.guest == place.guest && region.user == place.user && region.len == place.len
        };
        let at = self
            .regions
            .iter()
            .position(same)
            .ok_or(MemoryError::Unknown { at: place.guest })?;
        let mut less = self.clone();
        less.regions.remove(at);
        Ok(less)
    }

    /// Returns `true` if a region has lost pages. Data read since then may not be the client's.
    pub(crate) fn is_lost(&self) -> bool {
        self.regions.iter().any(|region| region.map.is_lost())
    }

    /// Returns the bytes at a guest address, up to `len` or the end of the region. `None` if the address is
    /// in no region.
    ///
    /// Many clients have a single region, so the first one is checked first. The binary search among the
    /// others takes 6 ns with four and 23 ns with 509. A linear search took 13 and 400 ns, because of
    /// mispredicted branches.
    #[inline]
    pub(crate) fn piece(&self, guest: u64, len: u64) -> Option<VolatileSlice<'_>> {
        let first = self.regions.first()?;
        let region = if guest.wrapping_sub(first.guest) < first.len {
            first
        } else {
            self.region_after_first(guest)?
        };
        let at = guest - region.guest;
        let count = len.min(region.len - at);
        region
            .map
            .get_slice(usize::try_from(at).ok()?, usize::try_from(count).ok()?)
            .ok()
    }

    fn region_after_first(&self, guest: u64) -> Option<&Region> {
        let after = self.regions.partition_point(|region| region.guest <= guest);
        let region = &self.regions[after.checked_sub(1)?];
        (guest - region.guest < region.len).then_some(region)
    }

    /// Returns the `len` bytes at a guest address, if one region contains them.
    #[inline]
    pub(crate) fn whole(&self, guest: u64, len: u64) -> Option<VolatileSlice<'_>> {
        self.piece(guest, len).filter(|slice| slice.len() as u64 == len)
    }

    /// Returns the `len` bytes at a virtual address of the client, if one region contains them. The result
    /// keeps the region mapped.
    pub(crate) fn area(&self, user: u64, len: u64) -> Option<Area> {
        let region = self
            .regions
            .iter()
            .find(|region| user.wrapping_sub(region.user) < region.len)?;
        let at = user - region.user;
        if len > region.len - at {
            return None;
        }
        Some(Area {
            map: region.map.clone(),
            at: usize::try_from(at).ok()?,
        })
    }
}

/// Maps `len` bytes of a client's file at `offset`.
///
/// # Errors
/// [`MemoryError`] if the file is shorter or may withhold its pages, or the system refuses to map it.
pub(crate) fn map_file(file: File, offset: u64, len: u64) -> Result<Mapping, MemoryError> {
    let size = usize::try_from(len).ok().filter(|size| *size > 0);
    let (Some(size), Some(end)) = (size, offset.checked_add(len)) else {
        return Err(MemoryError::NoRange { at: offset, len });
    };
    let about = file.metadata().map_err(MemoryError::Examine)?;
    if about.is_file() && about.len() < end {
        return Err(MemoryError::FileTooShort {
            needed: end,
            has: about.len(),
        });
    }
    let system = rustix::fs::fstatfs(&file).map_err(|error| MemoryError::Examine(error.into()))?;
    check_pages(system.f_type as u64, system.f_bsize as u64, offset, len)?;
    let map = MmapRegion::from_file(FileOffset::new(file, offset), size).map_err(MemoryError::Map)?;
    let protection = Protection::of(&map).map_err(MemoryError::Protect)?;
    Ok(Mapping { protection, map })
}

/// Checks whether a file system of this type and block size can map the range, and always delivers its pages.
fn check_pages(system: u64, page: u64, offset: u64, len: u64) -> Result<(), MemoryError> {
    const FUSE: u64 = 0x6573_5546;
    const HUGETLBFS: u64 = 0x9584_58f6;
    match system {
        FUSE => Err(MemoryError::Withheld),
        HUGETLBFS if page == 0 || !offset.is_multiple_of(page) || !len.is_multiple_of(page) => {
            Err(MemoryError::HugePages { page })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vm_memory::Bytes;

    /// Returns an unnamed file of `len` bytes.
    pub(crate) fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    /// Returns one region of `len` bytes at guest address 0x1000, user address 0x7000_0000.
    pub(crate) fn simple(len: u64) -> Memory {
        Memory::default()
            .with(place(0x1000, 0x7000_0000, len), file(len))
            .unwrap()
    }

    pub(crate) fn place(guest: u64, user: u64, len: u64) -> Place {
        Place {
            guest,
            user,
            len,
            offset: 0,
        }
    }

    #[test]
    fn translates_within_bounds_only() {
        let memory = simple(0x2000);
        assert_eq!(memory.piece(0x1000, 4).map(|slice| slice.len()), Some(4));
        assert_eq!(memory.piece(0x2ffe, 4).map(|slice| slice.len()), Some(2));
        assert!(memory.whole(0x2ffe, 4).is_none());
        for nowhere in [0, 0xfff, 0x3000, u64::MAX] {
            assert!(memory.piece(nowhere, 1).is_none(), "{nowhere:#x}");
        }
        assert!(memory.area(0x7000_0000, 0x2000).is_some());
        assert!(memory.area(0x7000_0001, 0x2000).is_none());
        assert!(memory.area(0x6fff_ffff, 1).is_none());
        assert!(memory.area(0x7000_1fff, u64::MAX).is_none());
    }

    #[test]
    fn refuses_invalid_regions() {
        let memory = simple(0x2000);
        let add = |place: Place, has: u64| memory.with(place, file(has)).map(|_| ());
        assert!(matches!(
            add(place(0x2fff, 0, 0x1000), 0x1000),
            Err(MemoryError::Overlap { .. })
        ));
        assert!(matches!(
            add(place(0x9000, 0, 0), 0x1000),
            Err(MemoryError::NoRange { .. })
        ));
        assert!(matches!(
            add(place(u64::MAX, 0, 0x1000), 0x1000),
            Err(MemoryError::NoRange { .. })
        ));
        assert!(matches!(
            add(place(0x9000, u64::MAX, 0x1000), 0x1000),
            Err(MemoryError::NoRange { .. })
        ));
        assert!(matches!(
            add(place(0x9000, 0, 0x1001), 0x1000),
            Err(MemoryError::FileTooShort { .. })
        ));
        assert!(matches!(
            memory.without(place(0x1000, 0, 0x2000)),
            Err(MemoryError::Unknown { .. })
        ));
        assert!(
            memory
                .without(place(0x1000, 0x7000_0000, 0x2000))
                .unwrap()
                .regions
                .is_empty()
        );
        assert_eq!(memory.regions.len(), 1);
    }

    #[test]
    fn some_file_systems_are_refused() {
        const TMPFS: u64 = 0x0102_1994;
        let huge = |offset, len| check_pages(0x9584_58f6, 0x20_0000, offset, len);
        assert!(matches!(
            check_pages(0x6573_5546, 4096, 0, 4096),
            Err(MemoryError::Withheld)
        ));
        assert!(check_pages(TMPFS, 4096, 1, 1).is_ok());
        assert!(huge(0, 0x20_0000).is_ok());
        assert!(huge(0x20_0000, 0x40_0000).is_ok());
        assert!(matches!(
            huge(0, 0x1000),
            Err(MemoryError::HugePages { page: 0x20_0000 })
        ));
        assert!(matches!(
            huge(0x1000, 0x20_0000),
            Err(MemoryError::HugePages { .. })
        ));
    }

    #[test]
    fn has_a_limit() {
        let mut memory = Memory::default();
        for i in 0..MOST_REGIONS as u64 {
            memory = memory
                .with(place(i * 0x1000, i * 0x1000, 0x1000), file(0x1000))
                .unwrap();
        }
        assert_eq!(memory.regions.len(), 509);
        let one_more = memory.with(place(1 << 40, 1 << 40, 0x1000), file(0x1000));
        assert!(matches!(one_more, Err(MemoryError::TooMany)));
    }

    /// Regions in any order, with and without gaps between them.
    #[test]
    fn c23_each_address_is_found_in_its_region() {
        let mut random = fastrand::Rng::with_seed(23);
        let mut slots: Vec<u64> = (0..MOST_REGIONS as u64).collect();
        random.shuffle(&mut slots);
        let mut memory = Memory::default();
        let start = |slot: u64| 0x10_0000 + slot * 0x3000 + slot / 7 * 0x5000;
        let len = |slot: u64| if slot.is_multiple_of(3) { 0x3000 } else { 0x2000 };
        for slot in &slots {
            let place = place(start(*slot), *slot << 32, len(*slot));
            memory = memory.with(place, file(len(*slot))).unwrap();
        }
        let mark = |memory: &Memory, slot: u64, at: u64| {
            let piece = memory.piece(start(slot) + at, 8)?;
            Some((piece.len(), piece.ptr_guard().as_ptr() as usize))
        };
        for slot in 0..MOST_REGIONS as u64 {
            let map = memory.area(slot << 32, 1).unwrap().map.as_ptr() as usize;
            let last = len(slot) - 3;
            assert_eq!(mark(&memory, slot, 0), Some((8, map)));
            assert_eq!(mark(&memory, slot, last), Some((3, map + last as usize)));
            if !slot.is_multiple_of(3) {
                assert_eq!(mark(&memory, slot, len(slot)), None);
            }
        }
        assert!(memory.piece(start(0) - 1, 1).is_none() && memory.piece(u64::MAX, 1).is_none());
        for slot in slots.into_iter().step_by(2) {
            let place = place(start(slot), slot << 32, len(slot));
            memory = memory.without(place).unwrap();
            assert!(mark(&memory, slot, 0).is_none());
        }
    }

    #[test]
    fn data_written_through_one_mapping_is_seen_through_another() {
        let shared = file(0x1000);
        let memory = Memory::default()
            .with(place(0, 0, 0x1000), shared.try_clone().unwrap())
            .unwrap();
        let again = Memory::default().with(place(0, 0, 0x1000), shared).unwrap();
        memory.whole(8, 4).unwrap().write_obj(0xdead_beef_u32, 0).unwrap();
        assert_eq!(
            again.whole(8, 4).unwrap().read_obj::<u32>(0).unwrap(),
            0xdead_beef
        );
    }
}
