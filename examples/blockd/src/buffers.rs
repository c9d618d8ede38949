//! The bytes of guest buffers, read and written like one contiguous range.
//!
//! The layout that a driver chooses has no effect: a header or a status may be split over buffers, and a
//! buffer over memory regions.

use vm_memory::VolatileSlice;

use crate::memory::Memory;

/// A buffer at a guest address. It need not lie in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) guest: u64,
    pub(crate) len: u32,
}

/// A part of a buffer is not in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buffer at {0:#x} is not in shared memory")]
pub(crate) struct Unmapped(pub(crate) u64);

/// A range of the bytes of some buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a> {
    memory: &'a Memory,
    buffers: &'a [Buffer],
    /// Bytes of `buffers` before the range.
    skip: u64,
    len: u64,
}

impl<'a> Bytes<'a> {
    /// Returns all bytes of some buffers.
    pub(crate) fn new(memory: &'a Memory, buffers: &'a [Buffer]) -> Self {
        let len = buffers.iter().map(|buffer| u64::from(buffer.len)).sum();
        Self {
            memory,
            buffers,
            skip: 0,
            len,
        }
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns `true` if the range is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the first `at` bytes and the rest, or `None` if there are fewer than `at`.
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

    /// Calls `each` for every piece that is contiguous in memory, in order.
    ///
    /// # Errors
    /// [`Unmapped`] at the first byte that is not in shared memory, after the pieces before it; or the error
    /// that `each` returns.
    #[inline]
    pub(crate) fn for_each<E: From<Unmapped>>(
        &self,
        mut each: impl FnMut(VolatileSlice<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.in_one_piece() {
            Some(piece) => each(piece),
            None => self.for_each_of_many(each),
        }
    }

    /// Returns the range, if it is not empty and lies in one buffer and one region, as nearly every header,
    /// status, and page of data does.
    #[inline]
    fn in_one_piece(&self) -> Option<VolatileSlice<'a>> {
        let first = self.buffers.first()?;
        if self.len == 0 || self.skip + self.len > u64::from(first.len) {
            return None;
        }
        self.memory.whole(first.guest.wrapping_add(self.skip), self.len)
    }

    #[inline(never)]
    fn for_each_of_many<E: From<Unmapped>>(
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

    /// Copies the first bytes to `target`, which must not be longer than the range.
    ///
    /// # Errors
    /// [`Unmapped`] if a part of them is not in shared memory.
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

    /// Copies `source`, which must not be longer than the range, over the first bytes.
    ///
    /// # Errors
    /// [`Unmapped`] if a part of them is not in shared memory; the bytes before it are written.
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

    #[test]
    fn any_layout_of_buffers_will_do() {
        // Two adjacent regions, and buffers of odd lengths, one of them across the border.
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
        for (from, to) in (0..=16).flat_map(|from| (from..=16).map(move |to| (from, to))) {
            let (_, after) = bytes.split_at(from).unwrap();
            let (range, _) = after.split_at(to - from).unwrap();
            let mut read = Vec::new();
            let all = range.for_each::<Unmapped>(|piece| {
                assert!(!piece.is_empty(), "{from}..{to}");
                let mut part = vec![0; piece.len()];
                piece.copy_to(&mut part);
                read.extend(part);
                Ok(())
            });
            assert_eq!((all, &*read), (Ok(()), &text[from as usize..to as usize]));
        }
    }

    #[test]
    fn unmapped_bytes_are_reported() {
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
