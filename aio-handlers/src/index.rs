//! [`FdIndex`]: finds slots by descriptor number.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use crate::steps::step;

/// The lowest number that is stored in the map, so that one huge number needs no huge array. It is the
/// default of `fs.nr_open`, which limits the array to 4 MiB.
pub(crate) const DENSE: usize = 1 << 20;
const NONE: u32 = u32::MAX;

/// Maps descriptor numbers to slots.
///
/// A system assigns the lowest free number, so the array is dense. The map is ordered, not hashed, because the hash of the standard
/// library requests random keys from the system.
#[derive(Debug, Default)]
pub(crate) struct FdIndex {
    dense: Vec<u32>,
    sparse: BTreeMap<RawFd, u32>,
}

impl FdIndex {
    #[inline]
    pub(crate) fn get(&self, fd: RawFd) -> Option<u32> {
        step();
        match place(fd) {
            Some(number) => self.dense.get(number).copied().filter(|slot| *slot != NONE),
            None => self.sparse.get(&fd).copied(),
        }
    }

    #[inline]
    pub(crate) fn set(&mut self, fd: RawFd, slot: u32) {
        debug_assert_ne!(slot, NONE);
        step();
        match place(fd) {
            Some(number) => {
                if self.dense.len() <= number {
                    self.dense.resize(number + 1, NONE);
                }
                self.dense[number] = slot;
            }
            None => {
                self.sparse.insert(fd, slot);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self, fd: RawFd) {
        step();
        match place(fd) {
            Some(number) => {
                if let Some(entry) = self.dense.get_mut(number) {
                    *entry = NONE;
                }
            }
            None => {
                self.sparse.remove(&fd);
            }
        }
    }

    /// Returns the number of entries. It walks over all of them, for checks.
    pub(crate) fn len(&self) -> usize {
        self.sparse.len() + self.dense.iter().filter(|slot| **slot != NONE).count()
    }
}

#[inline]
fn place(fd: RawFd) -> Option<usize> {
    usize::try_from(fd).ok().filter(|number| *number < DENSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: [RawFd; 8] = [0, 7, 1 << 19, (1 << 20) - 1, 1 << 20, 1 << 24, i32::MAX, -1];

    #[test]
    fn r2_numbers_of_any_size_are_found() {
        let mut index = FdIndex::default();
        for (slot, fd) in (0..).zip(NUMBERS) {
            index.set(fd, slot);
        }
        assert_eq!(index.len(), NUMBERS.len());
        for (slot, fd) in (0..).zip(NUMBERS) {
            assert_eq!(index.get(fd), Some(slot));
            index.clear(fd);
            assert_eq!(index.get(fd), None);
        }
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn r2_a_huge_number_costs_no_huge_array() {
        let mut index = FdIndex::default();
        index.set(i32::MAX, 0);
        index.set(i32::MIN, 1);
        index.set(DENSE as RawFd, 2);
        assert_eq!(index.dense.len(), 0);
        index.set(DENSE as RawFd - 1, 3);
        assert_eq!(index.dense.len(), DENSE);
        assert_eq!(
            index.dense.len() * size_of::<u32>(),
            4 << 20,
            "4 MiB, as on the crate's page"
        );
    }

    #[test]
    fn r2_unknown_numbers_are_looked_for_and_cleared_without_growth() {
        let mut index = FdIndex::default();
        for fd in NUMBERS {
            index.clear(fd);
            assert_eq!(index.get(fd), None);
        }
        assert_eq!((index.dense.len(), index.len()), (0, 0));
    }
}
