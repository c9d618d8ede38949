//! One request's descriptor chain: collected with limits, then read and written as two strings of bytes.
//!
//! The driver's layout does not matter: a header or a status may be split over descriptors, and a buffer over memory
//! regions. Nothing the driver writes while a chain is walked can make the walk longer than its limit or lead it outside
//! the shared memory.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{VolatileMemory, VolatileSlice};

use crate::memory::Memory;
use crate::ring::Ring;

/// The longest chain that is served. A driver is told to use at most [`crate::features::SEG_MAX`] buffers, so a longer one is broken.
pub(crate) const LONGEST_CHAIN: usize = 1024;

const DESCRIPTOR_LEN: u64 = 16;

/// What is wrong with a chain. The ring it came from cannot be trusted any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    /// An index outside its table.
    #[error("descriptor {0} is outside its table")]
    Index(u16),
    /// It goes round in circles, or is longer than a driver was told it may be.
    #[error("the chain loops, or has more than {0} descriptors")]
    TooLong(usize),
    /// A table inside a table, a table that is not the last, or one of impossible length or place.
    #[error("the indirect table at {at:#x} of {len:#x} bytes is not allowed there")]
    Indirect {
        /// Guest address.
        at: u64,
        /// Bytes.
        len: u32,
    },
    /// The device is to read what comes after something it is to write.
    #[error("a buffer for the device to read comes after one to write")]
    Order,
}

/// A buffer that the guest names; not necessarily one that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) guest: u64,
    pub(crate) len: u32,
}

/// The buffers of one request, in order. Kept and used again for the next, so that its memory is.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) readable: Vec<Buffer>,
    pub(crate) writable: Vec<Buffer>,
}

impl Chain {
    /// Collects the chain that begins at `head`.
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

/// A buffer lies, in part at least, in no shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buffer at {0:#x} is not in shared memory")]
pub(crate) struct Unmapped(pub(crate) u64);

/// A stretch of a chain's bytes, as if they lay one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a> {
    memory: &'a Memory,
    buffers: &'a [Buffer],
    /// Bytes of `buffers` before the stretch.
    skip: u64,
    len: u64,
}

impl<'a> Bytes<'a> {
    /// All bytes of some buffers.
    pub(crate) fn new(memory: &'a Memory, buffers: &'a [Buffer]) -> Self {
        let len = buffers.iter().map(|buffer| u64::from(buffer.len)).sum();
        Self {
            memory,
            buffers,
            skip: 0,
            len,
        }
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes before `at` and those from there on, or `None` if there are not so many.
    pub(crate) fn split_at(self, at: u64) -> Option<(Self, Self)> {
        if at > self.len {
            return None;
        }
        let mut rest = Self {
            skip: self.skip + at,
            len: self.len - at,
            ..self
        };
        while let Some(first) = rest.buffers.first() {
            if rest.skip < u64::from(first.len) {
                break;
            }
            rest.skip -= u64::from(first.len);
            rest.buffers = &rest.buffers[1..];
        }
        Some((Self { len: at, ..self }, rest))
    }

    /// Calls `each` for every piece that lies in one place, in order.
    ///
    /// # Errors
    /// [`Unmapped`] at the first byte that is nowhere; the pieces before it have been handed out. Or what `each` returns.
    #[inline]
    pub(crate) fn for_each<E: From<Unmapped>>(
        &self,
        mut each: impl FnMut(VolatileSlice<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut skip, mut left) = (self.skip, self.len);
        for buffer in self.buffers {
            let len = u64::from(buffer.len);
            if skip >= len {
                skip -= len;
                continue;
            }
            let mut guest = buffer.guest.wrapping_add(skip);
            let mut here = (len - skip).min(left);
            skip = 0;
            left -= here;
            while here > 0 {
                let piece = self.memory.piece(guest, here).ok_or(Unmapped(guest))?;
                let count = piece.len() as u64;
                each(piece)?;
                guest = guest.wrapping_add(count);
                here -= count;
            }
            if left == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Copies the first bytes to `target`, which must not be longer.
    ///
    /// # Errors
    /// [`Unmapped`] if a part of them is nowhere.
    pub(crate) fn read(&self, target: &mut [u8]) -> Result<(), Unmapped> {
        let mut done = 0;
        Self {
            len: self.len.min(target.len() as u64),
            ..*self
        }
        .for_each(|piece| {
            done += piece.copy_to(&mut target[done..]);
            Ok(())
        })
    }

    /// Copies `source`, which must not be longer, over the first bytes.
    ///
    /// # Errors
    /// [`Unmapped`] if a part of them is nowhere; what comes before has been written.
    pub(crate) fn write(&self, source: &[u8]) -> Result<(), Unmapped> {
        let mut done = 0;
        Self {
            len: self.len.min(source.len() as u64),
            ..*self
        }
        .for_each(|piece| {
            piece.copy_from(&source[done..]);
            done += piece.len();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::{file, place, simple};
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

    fn collect(memory: &Memory, ring: &Ring, head: u16) -> Result<Chain, ChainError> {
        let mut chain = Chain::default();
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
    fn loops_and_strays_end() {
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

    #[test]
    fn bytes_do_not_care_where_they_lie() {
        // Two regions that touch, and buffers of odd lengths, one of them across the border.
        let memory = simple(0x1000)
            .with(place(0x2000, 0x9000_0000, 0x1000), file(0x1000))
            .unwrap();
        let buffers = [(0x1000, 3), (0x1100, 0), (0x1ffc, 9), (0x2100, 4)];
        let buffers = buffers.map(|(guest, len)| Buffer { guest, len });
        let bytes = Bytes::new(&memory, &buffers);
        let text: Vec<u8> = (1..=16).collect();
        assert_eq!(bytes.len(), 16);
        bytes.write(&text).unwrap();
        for at in 0..=16 {
            let (before, after) = bytes.split_at(at).unwrap();
            let (mut head, mut tail) = (vec![0; at as usize], vec![0; 16 - at as usize]);
            before.read(&mut head).unwrap();
            after.read(&mut tail).unwrap();
            assert_eq!([head, tail].concat(), text, "split at {at}");
        }
        assert!(bytes.split_at(17).is_none());
        let (_, after) = bytes.split_at(5).unwrap();
        let (middle, _) = after.split_at(4).unwrap();
        let mut four = [0; 4];
        middle.read(&mut four).unwrap();
        assert_eq!(four, [6, 7, 8, 9]);
    }

    #[test]
    fn unmapped_bytes_are_found() {
        let memory = simple(0x1000);
        let buffers = [Buffer {
            guest: 0x1ff0,
            len: 32,
        }];
        let bytes = Bytes::new(&memory, &buffers);
        assert_eq!(bytes.read(&mut [0; 32]), Err(Unmapped(0x2000)));
        assert_eq!(bytes.read(&mut [0; 16]), Ok(()));
        let far = [Buffer {
            guest: u64::MAX - 3,
            len: 8,
        }];
        assert_eq!(
            Bytes::new(&memory, &far).write(&[0; 8]),
            Err(Unmapped(u64::MAX - 3))
        );
    }
}
