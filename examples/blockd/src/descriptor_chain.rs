//! The descriptor chain of one request: the buffers that the device reads, and those that it writes.
//!
//! The driver may write to the chain while the device walks it. That can neither make the walk longer than
//! its limit nor lead it outside the shared memory.

use virtio_queue::desc::split::Descriptor;
use vm_memory::VolatileMemory as _;

use crate::buffers::Buffer;
use crate::memory::Memory;
use crate::ring::Ring;

/// The longest chain that is served. The limit for drivers, [`crate::features::SEG_MAX`], is much lower.
pub(crate) const LONGEST_CHAIN: usize = 1024;

const DESCRIPTOR_LEN: u64 = 16;

/// The reason for which a chain is malformed. Its queue cannot be served any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    /// The index of a descriptor is outside its table.
    #[error("descriptor {0} is outside its table")]
    Index(u16),
    /// The chain has a loop, or is too long.
    #[error("the chain loops, or has more than {0} descriptors")]
    TooLong(usize),
    /// An indirect table in an indirect table, one with a next descriptor, or one of impossible length or address.
    #[error("the indirect table at {at:#x} of {len:#x} bytes is not allowed there")]
    Indirect {
        /// Guest address.
        at: u64,
        /// Bytes.
        len: u32,
    },
    /// A device-readable buffer follows a device-writable one.
    #[error("a buffer for the device to read comes after one to write")]
    Order,
}

/// The buffers of one request, in order. One value is reused for all requests, to keep its allocations.
#[derive(Debug, Default)]
pub(crate) struct DescriptorChain {
    pub(crate) readable: Vec<Buffer>,
    pub(crate) writable: Vec<Buffer>,
}

impl DescriptorChain {
    /// Replaces the contents with the chain that begins at `head`.
    pub(crate) fn collect(&mut self, ring: &Ring, memory: &Memory, head: u16) -> Result<(), ChainError> {
        self.readable.clear();
        self.writable.clear();
        let limit = usize::from(ring.size());
        let mut index = head;
        for _ in 0..limit {
            let descriptor = ring.descriptor(index).ok_or(ChainError::Index(index))?;
            if descriptor.refers_to_indirect_table() {
                return self.collect_indirect(memory, &descriptor);
            }
            self.push(&descriptor)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
        Err(ChainError::TooLong(limit.min(LONGEST_CHAIN)))
    }

    fn collect_indirect(&mut self, memory: &Memory, table: &Descriptor) -> Result<(), ChainError> {
        let (at, len) = (table.addr().0, table.len());
        let refused = ChainError::Indirect { at, len };
        let entries = u64::from(len) / DESCRIPTOR_LEN;
        let odd = !u64::from(len).is_multiple_of(DESCRIPTOR_LEN);
        if odd || entries == 0 || entries > u64::from(u16::MAX) || table.has_next() {
            return Err(refused);
        }
        let table = memory.whole(at, u64::from(len)).ok_or(refused)?;
        let limit = LONGEST_CHAIN.min(entries as usize);
        let mut index = 0u16;
        for _ in 0..limit {
            let descriptor = table
                .get_ref::<Descriptor>(usize::from(index) * DESCRIPTOR_LEN as usize)
                .map_err(|_| ChainError::Index(index))?
                .load();
            if descriptor.refers_to_indirect_table() {
                return Err(ChainError::Indirect {
                    at: descriptor.addr().0,
                    len: descriptor.len(),
                });
            }
            self.push(&descriptor)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
        Err(ChainError::TooLong(limit))
    }

    #[inline]
    fn push(&mut self, descriptor: &Descriptor) -> Result<(), ChainError> {
        let buffer = Buffer {
            guest: descriptor.addr().0,
            len: descriptor.len(),
        };
        if descriptor.is_write_only() {
            self.writable.push(buffer);
        } else if self.writable.is_empty() {
            self.readable.push(buffer);
        } else {
            return Err(ChainError::Order);
        }
        if self.readable.len() + self.writable.len() > LONGEST_CHAIN {
            return Err(ChainError::TooLong(LONGEST_CHAIN));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::simple;
    use crate::ring::RingAddresses;
    use vm_memory::Bytes as _;

    const USER: u64 = 0x7000_0000;
    const GUEST: u64 = 0x1000;
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;

    fn put(memory: &Memory, table: u64, index: u64, addr: u64, len: u32, flags: u16, next: u16) {
        let descriptor = Descriptor::new(addr, len, flags, next);
        memory
            .whole(table + 16 * index, 16)
            .unwrap()
            .write_obj(descriptor, 0)
            .unwrap();
    }

    fn set_up() -> (Memory, Ring) {
        let memory = simple(0x10000);
        let at = RingAddresses {
            descriptors: USER,
            available: USER + 0x1000,
            used: USER + 0x2000,
        };
        let ring = Ring::find(&memory, at, 8, false).unwrap();
        (memory, ring)
    }

    fn collect(memory: &Memory, ring: &Ring, head: u16) -> Result<DescriptorChain, ChainError> {
        let mut chain = DescriptorChain::default();
        chain.collect(ring, memory, head).map(|()| chain)
    }

    #[test]
    fn collects_in_order() {
        let (memory, ring) = set_up();
        put(&memory, GUEST, 3, 0x100, 16, NEXT, 7);
        put(&memory, GUEST, 7, 0x200, 512, NEXT | WRITE, 0);
        put(&memory, GUEST, 0, 0x300, 1, WRITE, 99);
        let chain = collect(&memory, &ring, 3).unwrap();
        assert_eq!(
            chain.readable,
            [Buffer {
                guest: 0x100,
                len: 16
            }]
        );
        assert_eq!(
            chain.writable,
            [
                Buffer {
                    guest: 0x200,
                    len: 512
                },
                Buffer { guest: 0x300, len: 1 }
            ]
        );
    }

    #[test]
    fn loops_and_indices_out_of_range_end() {
        let (memory, ring) = set_up();
        put(&memory, GUEST, 0, 0x100, 16, NEXT, 1);
        put(&memory, GUEST, 1, 0x100, 16, NEXT, 0);
        assert_eq!(collect(&memory, &ring, 0).unwrap_err(), ChainError::TooLong(8));
        put(&memory, GUEST, 1, 0x100, 16, NEXT, 8);
        assert_eq!(collect(&memory, &ring, 0).unwrap_err(), ChainError::Index(8));
        assert_eq!(
            collect(&memory, &ring, 0xffff).unwrap_err(),
            ChainError::Index(0xffff)
        );
        put(&memory, GUEST, 0, 0x100, 16, NEXT | WRITE, 1);
        put(&memory, GUEST, 1, 0x100, 16, 0, 0);
        assert_eq!(collect(&memory, &ring, 0).unwrap_err(), ChainError::Order);
    }

    #[test]
    fn indirect_tables_have_their_rules() {
        let (memory, ring) = set_up();
        let table = GUEST + 0x4000;
        put(&memory, table, 0, 0x100, 16, NEXT, 2);
        put(&memory, table, 2, 0x200, 1, WRITE, 0);
        put(&memory, GUEST, 0, table, 48, INDIRECT, 0);
        assert_eq!(
            collect(&memory, &ring, 0).unwrap().writable,
            [Buffer { guest: 0x200, len: 1 }]
        );

        let refused = |addr: u64, len: u32, flags: u16| {
            put(&memory, GUEST, 0, addr, len, flags, 0);
            matches!(collect(&memory, &ring, 0), Err(ChainError::Indirect { .. }))
        };
        assert!(refused(table, 40, INDIRECT));
        assert!(refused(table, 0, INDIRECT));
        assert!(refused(table, 0xffff_fff0, INDIRECT));
        assert!(refused(table, 48, INDIRECT | NEXT));
        assert!(refused(GUEST + 0xfff0, 32, INDIRECT), "reaches out of the memory");
        assert!(refused(u64::MAX - 15, 32, INDIRECT));
        put(&memory, table, 0, table, 48, INDIRECT, 0);
        assert!(refused(table, 48, INDIRECT), "nested");
        put(&memory, table, 0, 0x100, 16, NEXT, 3);
        put(&memory, GUEST, 0, table, 48, INDIRECT, 0);
        assert_eq!(collect(&memory, &ring, 0).unwrap_err(), ChainError::Index(3));
        put(&memory, table, 0, 0x100, 16, NEXT, 0);
        assert_eq!(collect(&memory, &ring, 0).unwrap_err(), ChainError::TooLong(3));
    }
}
