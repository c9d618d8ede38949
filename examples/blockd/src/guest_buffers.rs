//! Guest buffers, and parts of vectors, as the memory of an operation on the ring, without a copy.
#![allow(
    unsafe_code,
    reason = "only this module knows how long the memory of a client stays mapped, and who owns that of a vector"
)]

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use aio_context::{Buffers, ForeignMemory, Operation};

use crate::buffers::{Bytes, Unmapped};
use crate::memory::Memory;

/// The most pieces of an operation: the limit of the system.
const MOST_PIECES: usize = 1024;

/// Memory of the client, as a list of pieces for the kernel.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) memory: ForeignMemory,
    /// The number of bytes.
    pub(crate) len: u64,
    /// A power of two. All addresses and lengths of the pieces are multiples of it.
    pub(crate) alignment: u64,
}

/// Describes the first bytes of `bytes` to the kernel: at most `most` of them, in at most as many pieces as
/// an operation can have. `bytes` must lie in `memory`.
///
/// # Errors
/// [`Unmapped`] if a part of them is not in shared memory.
pub(crate) fn describe(memory: &Arc<Memory>, bytes: Bytes<'_>, most: u64) -> Result<Described, Unmapped> {
    let (mut pieces, mut len, mut bits) = (Vec::new(), 0, 1 << 63);
    bytes.for_each(|piece| {
        let count = (piece.len() as u64).min(most - len) as usize;
        if count > 0 && pieces.len() < MOST_PIECES {
            let first = piece.ptr_guard_mut().as_ptr();
            pieces.push((first, count));
            bits |= (first.addr() | count) as u64;
            len += count as u64;
        }
        Ok::<_, Unmapped>(())
    })?;
    // SAFETY: each piece lies within a mapping of `memory`, of which the operation owns a reference and which
    // never unmaps a region. There are no references to this memory: the client changes it at any time, and
    // this process accesses it by volatile and atomic operations only (see `memory`). Access to pages that
    // the client takes away makes the kernel return `EFAULT`.
    let described = unsafe { ForeignMemory::new(memory.clone(), pieces) };
    Ok(Described {
        memory: described,
        len,
        alignment: 1 << bits.trailing_zeros(),
    })
}

/// Describes a part of a vector. The operation owns the vector until [`lent`] returns it.
///
/// # Panics
/// If the vector is shorter than the part.
pub(crate) fn lend(mut data: Vec<u8>, part: Range<usize>) -> ForeignMemory {
    let piece = &mut data[part];
    let piece = (piece.as_mut_ptr(), piece.len());
    // SAFETY: the piece lies in the heap memory of the vector, which does not move with it and is freed with
    // it, and the vector is the owner. No reference to its bytes exists while the operation has it: it is
    // returned by value only, after the operation.
    unsafe { ForeignMemory::new(data, [piece]) }
}

/// Returns the vector whose part an operation has used, if the vector was [lent](lend).
pub(crate) fn lent(mut operation: Operation) -> Option<Vec<u8>> {
    let Buffers::Foreign(memory) = operation.take_buffers() else {
        return None;
    };
    let memory: Box<dyn Any> = memory;
    memory.downcast::<ForeignMemory>().ok()?.into_owner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Buffer;
    use crate::memory::tests::simple;

    #[test]
    fn s1_a_vector_comes_back_from_its_operation() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let operation = Operation::read(file.clone(), 0, lend(vec![7; 16], 4..8));
        assert_eq!(lent(operation), Some(vec![7; 16]));
        assert_eq!(lent(Operation::read(file.clone(), 0, vec![7; 16])), None);
        assert_eq!(lent(Operation::sync_data(file)), None);
        let foreign = describe(&Arc::new(simple(0x2000)), Bytes::new(&simple(0x2000), &[]), 0).unwrap();
        assert_eq!(foreign.memory.into_owner::<Vec<u8>>(), None);
    }

    #[test]
    fn s1_a_description_has_limits_and_only_mapped_memory() {
        let memory = Arc::new(simple(0x2000));
        let buffers = |all: &[(u64, u32)]| -> Vec<Buffer> {
            all.iter().map(|&(guest, len)| Buffer { guest, len }).collect()
        };
        let len = |buffers: &[Buffer], most| {
            describe(&memory, Bytes::new(&memory, buffers), most).map(|described| described.len)
        };
        let alignment = |buffers: &[Buffer]| {
            describe(&memory, Bytes::new(&memory, buffers), u64::MAX).map(|described| described.alignment)
        };
        assert_eq!(alignment(&buffers(&[(0x1000, 512), (0x2000, 4096)])), Ok(512));
        assert_eq!(alignment(&buffers(&[(0x1008, 512)])), Ok(8));
        assert_eq!(alignment(&buffers(&[])), Ok(1 << 63));
        let some = buffers(&[(0x1000, 512), (0x1800, 0), (0x2000, 1024)]);
        assert_eq!((len(&some, u64::MAX), len(&some, 1536)), (Ok(1536), Ok(1536)));
        assert_eq!((len(&some, 600), len(&some, 0)), (Ok(600), Ok(0)));
        let many = buffers(&[(0x1000, 2); 1500]);
        assert_eq!(len(&many, u64::MAX), Ok(2048));
        assert_eq!(len(&buffers(&[(0x2ff0, 32)]), u64::MAX), Err(Unmapped(0x3000)));
        assert_eq!(Arc::strong_count(&memory), 1);
    }
}
