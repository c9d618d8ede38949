//! A split virtqueue in the client's memory: loads, stores and fences.
//!
//! The addresses are translated once, when a queue starts. After that an access is one bounds check and one load or store.
//! A ring has no position; [`crate::vring`] stores it.

use std::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_bindings::bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use virtio_queue::desc::split::Descriptor;
use vm_memory::VolatileMemory;

use crate::memory::{Area, Memory};

/// The largest queue that the specification allows.
pub(crate) const MOST_ENTRIES: u16 = 32768;

const DESCRIPTOR_LEN: u64 = 16;
/// The bytes before the entries of either ring: flags and index.
const HEADER_LEN: usize = 4;
const INDEX_AT: usize = 2;
const AVAIL_ENTRY_LEN: usize = 2;
const USED_ENTRY_LEN: usize = 8;

/// The parts of a queue, as virtual addresses of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RingAddresses {
    /// The descriptor table.
    pub(crate) descriptors: u64,
    /// The ring that the driver writes.
    pub(crate) available: u64,
    /// The ring that the device writes.
    pub(crate) used: u64,
}

/// The reason for which a queue cannot have this size or these addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RingError {
    /// The number of entries is invalid.
    #[error("a queue of {0} entries: it must be a power of two, at most {MOST_ENTRIES}")]
    Size(u32),
    /// A part is not aligned.
    #[error("the {part} at {at:#x} is not aligned to {align} bytes")]
    Alignment {
        /// The name of the part.
        part: &'static str,
        /// The address.
        at: u64,
        /// The required alignment in bytes.
        align: u64,
    },
    /// A part is not in shared memory.
    #[error(
        "the {part} at {at:#x} does not lie in one shared memory region; guest memory must be shared: \
         -object memory-backend-memfd,...,share=on for QEMU, shared=on for cloud-hypervisor"
    )]
    Outside {
        /// The name of the part.
        part: &'static str,
        /// The address.
        at: u64,
    },
}

/// One split virtqueue.
#[derive(Debug)]
pub(crate) struct Ring {
    descriptors: Area,
    available: Area,
    used: Area,
    size: u16,
    event_idx: bool,
}

impl Ring {
    /// Finds the parts of a queue in shared memory.
    ///
    /// # Errors
    /// [`RingError`] if the size is invalid, or a part is not aligned or not in one region.
    pub(crate) fn find(
        memory: &Memory,
        at: RingAddresses,
        size: u32,
        event_idx: bool,
    ) -> Result<Self, RingError> {
        let size = check_size(size)?;
        let entries = u64::from(size);
        let part = |part, at: u64, align: u64, len: u64| {
            if !at.is_multiple_of(align) {
                return Err(RingError::Alignment { part, at, align });
            }
            let area = memory.area(at, len).ok_or(RingError::Outside { part, at })?;
            // The mapping is page-aligned, but the client's addresses may not be.
            if !(area.at as u64).is_multiple_of(align) {
                return Err(RingError::Alignment { part, at, align });
            }
            Ok(area)
        };
        // Each ring ends with two bytes for the other side's event index, which may be unused.
        let available_len = 6 + AVAIL_ENTRY_LEN as u64 * entries;
        let used_len = 6 + USED_ENTRY_LEN as u64 * entries;
        Ok(Self {
            descriptors: part("descriptor table", at.descriptors, 16, DESCRIPTOR_LEN * entries)?,
            available: part("available ring", at.available, 2, available_len)?,
            used: part("used ring", at.used, 4, used_len)?,
            size,
            event_idx,
        })
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Returns the available index. The entries before it are visible afterwards.
    #[inline]
    pub(crate) fn available_index(&self) -> u16 {
        u16::from_le(atomic(&self.available, INDEX_AT).load(Ordering::Acquire))
    }

    /// Returns the head of the chain at a position of the available ring. The driver may have written any
    /// number.
    #[inline]
    pub(crate) fn available_entry(&self, position: u16) -> u16 {
        let slot = usize::from(position & (self.size - 1));
        u16::from_le(atomic(&self.available, HEADER_LEN + slot * AVAIL_ENTRY_LEN).load(Ordering::Relaxed))
    }

    /// Returns a copy of a descriptor, or `None` beyond the table. The driver may change it meanwhile.
    #[inline]
    pub(crate) fn descriptor(&self, index: u16) -> Option<Descriptor> {
        if index >= self.size {
            return None;
        }
        let at = self.descriptors.at + usize::from(index) * DESCRIPTOR_LEN as usize;
        self.descriptors
            .map
            .get_ref::<Descriptor>(at)
            .ok()
            .map(|descriptor| descriptor.load())
    }

    /// Returns the used index.
    pub(crate) fn used_index(&self) -> u16 {
        u16::from_le(atomic(&self.used, INDEX_AT).load(Ordering::Relaxed))
    }

    /// Returns the entry of the available ring at which to start, if the client has set `base`.
    ///
    /// This is for a queue without in-flight tracking, or for one whose region was never used. The device
    /// completes requests in the order of the available ring, so the used index counts the completed
    /// requests, also those of an earlier daemon of this kind. After a daemon was killed, the entries from
    /// the used index to the available index are requests without a completion, and their descriptors still
    /// belong to the device. A client may set either index: the used index, because no later request is
    /// complete (QEMU), or the available index, because it regards all available requests as taken
    /// (cloud-hypervisor). The used index is right in both cases. A request that was executed but not
    /// published as used is executed again, with all later ones of its queue and in their order, so the
    /// contents of the disk are the same afterwards.
    ///
    /// This requires that the former device completed requests in order, or completed all taken requests
    /// before it answered GET_VRING_BASE. After a kill of a device that completed out of order, no index
    /// tells which requests are complete.
    ///
    /// No other `base` is valid, either. The requests before the used index are complete: the driver has
    /// their descriptors back, and would get more completions than it has offered requests. Beyond the
    /// available index there are no requests.
    ///
    /// `base` counts only if the available index is further ahead of the used index than the queue has
    /// entries. With such indexes no request can be outstanding. The queue fails if the same is true with
    /// `base`.
    pub(crate) fn resume_at(&self, base: u16) -> u16 {
        let (used, available) = (self.used_index(), self.available_index());
        match available.wrapping_sub(used) <= self.size {
            true => used,
            false => base,
        }
    }

    /// Writes an entry of the used ring. [`publish`](Self::publish) makes it visible.
    #[inline]
    pub(crate) fn set_used_entry(&self, position: u16, head: u16, written: u32) {
        let slot = usize::from(position & (self.size - 1));
        let at = self.used.at + HEADER_LEN + slot * USED_ENTRY_LEN;
        let entry = u64::from(head) | u64::from(written) << 32;
        if let Ok(slot) = self.used.map.get_ref::<u64>(at) {
            slot.store(entry.to_le());
        }
    }

    /// Makes all entries of the used ring before `index`, and the data written for them, visible to the driver.
    #[inline]
    pub(crate) fn publish(&self, index: u16) {
        atomic(&self.used, INDEX_AT).store(index.to_le(), Ordering::Release);
    }

    /// Suppresses kicks. The driver may still kick.
    #[inline]
    pub(crate) fn suppress_kicks(&self, position: u16) {
        if self.event_idx {
            // This is the index before the present one: the driver passes it with the 65,536th request from
            // here, and then kicks once.
            atomic(&self.used, self.event_at()).store(position.wrapping_sub(1).to_le(), Ordering::Relaxed);
        } else {
            atomic(&self.used, 0).store((VRING_USED_F_NO_NOTIFY as u16).to_le(), Ordering::Relaxed);
        }
    }

    /// Makes the driver kick once its index passes `position`. After a [`full_fence`],
    /// [`available_index`](Self::available_index) includes all requests that the driver published before it
    /// could see this.
    #[inline]
    pub(crate) fn ask_for_kicks(&self, position: u16) {
        if self.event_idx {
            atomic(&self.used, self.event_at()).store(position.to_le(), Ordering::Relaxed);
        } else {
            atomic(&self.used, 0).store(0, Ordering::Relaxed);
        }
    }

    /// Returns `true` if the driver wants a call when the used index goes from `before` to `now`. Must be
    /// called after the index was published and a [`full_fence`].
    #[inline]
    pub(crate) fn wants_call(&self, before: u16, now: u16) -> bool {
        if self.event_idx {
            let at = HEADER_LEN + usize::from(self.size) * AVAIL_ENTRY_LEN;
            let event = u16::from_le(atomic(&self.available, at).load(Ordering::Relaxed));
            now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
        } else {
            let flags = u16::from_le(atomic(&self.available, 0).load(Ordering::Relaxed));
            before != now && flags & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0
        }
    }

    pub(crate) fn has_event_idx(&self) -> bool {
        self.event_idx
    }

    /// Returns the bytes of the used ring.
    pub(crate) fn used_len(&self) -> u64 {
        6 + USED_ENTRY_LEN as u64 * u64::from(self.size)
    }

    fn event_at(&self) -> usize {
        HEADER_LEN + usize::from(self.size) * USED_ENTRY_LEN
    }
}

/// Orders earlier stores before later loads. The device stores the used index and then loads whether a call
/// is wanted, or stores its request for kicks and then loads the available index. The driver does the
/// reverse. Without a full fence on both sides, each can miss the other's store.
#[inline]
pub(crate) fn full_fence() {
    fence(Ordering::SeqCst);
}

/// Checks the number of entries of a queue.
pub(crate) fn check_size(size: u32) -> Result<u16, RingError> {
    u16::try_from(size)
        .ok()
        .filter(|size| size.is_power_of_two() && *size <= MOST_ENTRIES)
        .ok_or(RingError::Size(size))
}

#[inline]
fn atomic(area: &Area, offset: usize) -> &AtomicU16 {
    area.map
        .get_atomic_ref::<AtomicU16>(area.at + offset)
        .expect("bounds and alignment were checked when the queue was found")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::simple;

    const USER: u64 = 0x7000_0000;
    const AT: RingAddresses = RingAddresses {
        descriptors: USER,
        available: USER + 0x1000,
        used: USER + 0x2000,
    };

    fn ring(event_idx: bool) -> (Memory, Ring) {
        let memory = simple(0x4000);
        let ring = Ring::find(&memory, AT, 8, event_idx).unwrap();
        (memory, ring)
    }

    fn put(memory: &Memory, guest: u64, value: u16) {
        memory
            .whole(guest, 2)
            .unwrap()
            .get_ref::<u16>(0)
            .unwrap()
            .store(value);
    }

    fn get(memory: &Memory, guest: u64) -> u16 {
        memory.whole(guest, 2).unwrap().get_ref::<u16>(0).unwrap().load()
    }

    #[test]
    fn refuses_impossible_places() {
        let memory = simple(0x4000);
        let find = |at, size| Ring::find(&memory, at, size, false).map(|_| ());
        for size in [0, 3, 6, 65536, 0x8000_0000] {
            assert_eq!(find(AT, size), Err(RingError::Size(size)));
        }
        let part = |change: &dyn Fn(&mut RingAddresses)| {
            let mut at = AT;
            change(&mut at);
            find(at, 8)
        };
        assert!(matches!(
            part(&|at| at.descriptors += 8),
            Err(RingError::Alignment { .. })
        ));
        assert!(matches!(
            part(&|at| at.available += 1),
            Err(RingError::Alignment { .. })
        ));
        assert!(matches!(
            part(&|at| at.used += 2),
            Err(RingError::Alignment { .. })
        ));
        assert!(matches!(
            part(&|at| at.used = USER + 0x3ffc),
            Err(RingError::Outside { .. })
        ));
        assert!(matches!(
            part(&|at| at.descriptors = 0),
            Err(RingError::Outside { .. })
        ));
        assert_eq!(find(AT, 256), Ok(()));
        assert!(
            matches!(find(AT, 1024), Err(RingError::Outside { .. })),
            "the used ring does not fit"
        );
    }

    #[test]
    fn positions_wrap() {
        let (memory, ring) = ring(false);
        put(&memory, 0x2000 + 4 + 2 * 7, 5);
        assert_eq!(ring.available_entry(7), 5);
        assert_eq!(ring.available_entry(u16::MAX), 5);
        ring.set_used_entry(u16::MAX, 3, 513);
        ring.publish(0);
        assert_eq!(get(&memory, 0x3000 + 4 + 8 * 7), 3);
        assert_eq!(get(&memory, 0x3000 + 4 + 8 * 7 + 4), 513);
        assert!(ring.descriptor(8).is_none());
    }

    #[test]
    fn c6_a_queue_resumes_at_the_used_index() {
        for event_idx in [false, true] {
            let (memory, ring) = ring(event_idx);
            for used in [0u16, 5, 0xfffe] {
                for outstanding in 0..=8 {
                    put(&memory, 0x3002, used);
                    put(&memory, 0x2002, used.wrapping_add(outstanding));
                    // The base is the used index, the available index, one between them, or the position of a
                    // request that is complete or was never offered.
                    for base in 0..=u16::MAX {
                        let start = ring.resume_at(used.wrapping_add(base));
                        assert_eq!(start, used, "{used} {outstanding} {base}");
                    }
                }
                // More outstanding requests than the queue has entries are invalid.
                put(&memory, 0x2002, used.wrapping_add(9));
                assert_eq!(ring.resume_at(used.wrapping_add(9)), used.wrapping_add(9));
            }
        }
    }

    #[test]
    fn kicks_are_switched_by_the_flag() {
        let (memory, ring) = ring(false);
        ring.suppress_kicks(0);
        assert_eq!(get(&memory, 0x3000), 1);
        ring.ask_for_kicks(0);
        assert_eq!(get(&memory, 0x3000), 0);
        assert!(ring.wants_call(0, 1));
        assert!(!ring.wants_call(1, 1));
        put(&memory, 0x2000, 1);
        assert!(!ring.wants_call(0, 1));
    }

    #[test]
    fn kicks_are_switched_by_the_event_index() {
        let (memory, ring) = ring(true);
        let event = 0x3000 + 4 + 8 * 8;
        // A driver kicks if its index has passed the event index since its last check.
        let driver_kicks = |before: u16, now: u16| {
            now.wrapping_sub(get(&memory, event)).wrapping_sub(1) < now.wrapping_sub(before)
        };
        for position in [0u16, 1, 7, 0x7fff, 0xffff] {
            ring.ask_for_kicks(position);
            assert!(driver_kicks(position, position.wrapping_add(1)));
            assert!(driver_kicks(position, position.wrapping_add(8)));
            ring.suppress_kicks(position);
            assert!(!driver_kicks(position, position.wrapping_add(1)));
            assert!(!driver_kicks(position.wrapping_add(1), position.wrapping_add(8)));
        }
    }

    #[test]
    fn calls_follow_the_event_index() {
        let (memory, ring) = ring(true);
        put(&memory, 0x2000 + 4 + 2 * 8, 3);
        assert!(ring.wants_call(3, 4));
        assert!(ring.wants_call(0, 8));
        assert!(!ring.wants_call(4, 8));
        assert!(!ring.wants_call(0, 3));
        put(&memory, 0x2000 + 4 + 2 * 8, 0xffff);
        assert!(ring.wants_call(0xfffe, 1));
        assert!(!ring.wants_call(0, 1));
    }
}
