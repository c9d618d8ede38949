//! A slab whose slots have generations, and an index from descriptor numbers to slots.

use std::collections::HashMap;
use std::os::fd::RawFd;

use aio_backend::{Interest, Readiness, Token};

use crate::GroupId;

/// Descriptor numbers are small and dense; those from here on go to a map, so that one huge number costs no huge array.
const DENSE: usize = 1 << 20;
const NONE: u32 = u32::MAX;

/// What is kept for one handler, beside its value.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    pub(crate) value: T,
    pub(crate) fd: Option<RawFd>,
    pub(crate) group: GroupId,
    pub(crate) interest: Interest,
    pub(crate) pending: Readiness,
    /// An event came while it was paused or held, and the backend was told to be silent.
    pub(crate) parked: bool,
    /// How many users ask that it is not called.
    pub(crate) holds: u32,
}

#[derive(Debug)]
struct Cell<T> {
    generation: u32,
    slot: Option<Slot<T>>,
}

/// The slab.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    cells: Vec<Cell<T>>,
    vacant: Vec<u32>,
    live: usize,
    first_generation: u32,
}

impl<T> Slots<T> {
    /// An empty slab whose slots begin with `generation`.
    pub(crate) fn starting_at(generation: u32) -> Self {
        Self {
            cells: Vec::new(),
            vacant: Vec::new(),
            live: 0,
            first_generation: generation,
        }
    }

    pub(crate) fn insert(&mut self, slot: Slot<T>) -> Token {
        self.live += 1;
        if let Some(index) = self.vacant.pop() {
            let cell = &mut self.cells[index as usize];
            cell.slot = Some(slot);
            return Token::new(index, cell.generation);
        }
        let index = u32::try_from(self.cells.len()).unwrap_or(NONE);
        assert!(index < NONE, "more than four thousand million handlers");
        self.cells.push(Cell {
            generation: self.first_generation,
            slot: Some(slot),
        });
        Token::new(index, self.first_generation)
    }

    /// Takes a slot out. Its generation ends; a slot that has used up all of them is never used again.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Slot<T>> {
        let cell = self.cells.get_mut(token.index() as usize)?;
        if cell.generation != token.generation() {
            return None;
        }
        let slot = cell.slot.take()?;
        self.live -= 1;
        if let Some(next) = cell.generation.checked_add(1) {
            cell.generation = next;
            self.vacant.push(token.index());
        }
        Some(slot)
    }

    pub(crate) fn get(&self, token: Token) -> Option<&Slot<T>> {
        let cell = self.cells.get(token.index() as usize)?;
        if cell.generation == token.generation() {
            cell.slot.as_ref()
        } else {
            None
        }
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Slot<T>> {
        let cell = self.cells.get_mut(token.index() as usize)?;
        if cell.generation == token.generation() {
            cell.slot.as_mut()
        } else {
            None
        }
    }

    /// The token of the live slot at `index`.
    pub(crate) fn at(&self, index: u32) -> Option<Token> {
        let cell = self.cells.get(index as usize)?;
        cell.slot.as_ref().map(|_| Token::new(index, cell.generation))
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, &Slot<T>)> {
        self.cells.iter().zip(0u32..).filter_map(|(cell, index)| {
            cell.slot
                .as_ref()
                .map(|slot| (Token::new(index, cell.generation), slot))
        })
    }
}

/// From a descriptor number to the slot that has it.
#[derive(Debug, Default)]
pub(crate) struct FdIndex {
    dense: Vec<u32>,
    sparse: HashMap<RawFd, u32>,
}

impl FdIndex {
    pub(crate) fn get(&self, fd: RawFd) -> Option<u32> {
        match usize::try_from(fd) {
            Ok(number) if number < DENSE => self.dense.get(number).copied().filter(|index| *index != NONE),
            _ => self.sparse.get(&fd).copied(),
        }
    }

    pub(crate) fn set(&mut self, fd: RawFd, index: u32) {
        match usize::try_from(fd) {
            Ok(number) if number < DENSE => {
                if self.dense.len() <= number {
                    self.dense.resize(number + 1, NONE);
                }
                self.dense[number] = index;
            }
            _ => {
                self.sparse.insert(fd, index);
            }
        }
    }

    pub(crate) fn clear(&mut self, fd: RawFd) {
        match usize::try_from(fd) {
            Ok(number) if number < DENSE => {
                if let Some(entry) = self.dense.get_mut(number) {
                    *entry = NONE;
                }
            }
            _ => {
                self.sparse.remove(&fd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(value: u32) -> Slot<u32> {
        Slot {
            value,
            fd: None,
            group: GroupId::DEFAULT,
            interest: Interest::READ,
            pending: Readiness::empty(),
            parked: false,
            holds: 0,
        }
    }

    #[test]
    fn r2_a_slot_that_has_used_up_its_generations_is_retired() {
        let mut slots = Slots::starting_at(u32::MAX - 1);
        let first = slots.insert(slot(1));
        assert!(slots.remove(first).is_some());
        let second = slots.insert(slot(2));
        assert_eq!((second.index(), second.generation()), (first.index(), u32::MAX));
        assert!(slots.remove(second).is_some());
        let third = slots.insert(slot(3));
        assert_ne!(third.index(), first.index(), "its generations are used up");
        assert!(slots.get(first).is_none() && slots.get(second).is_none());
    }

    #[test]
    fn r2_numbers_of_any_size_are_found() {
        let mut index = FdIndex::default();
        for (slot, fd) in [0, 7, 1 << 19, 1 << 24, i32::MAX, -1].into_iter().enumerate() {
            index.set(fd, u32::try_from(slot).unwrap());
        }
        for (slot, fd) in [0, 7, 1 << 19, 1 << 24, i32::MAX, -1].into_iter().enumerate() {
            assert_eq!(index.get(fd), Some(u32::try_from(slot).unwrap()));
            index.clear(fd);
            assert_eq!(index.get(fd), None);
        }
        assert!(index.dense.len() <= DENSE);
    }

    #[test]
    fn the_cost_of_a_handler_beside_its_value_is_small() {
        assert!(std::mem::size_of::<Cell<()>>() + 2 * std::mem::size_of::<u32>() <= 64);
    }
}
