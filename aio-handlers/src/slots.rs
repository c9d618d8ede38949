//! A slab with a generation for each slot.
//!
//! Slots are reused, generations are not, so a token identifies one registration for ever. The slab does not
//! depend on the content of its slots.

use aio_backend::Token;

use crate::steps::step;

#[derive(Debug)]
struct Cell<S> {
    /// The token of the live slot, or of the next one.
    token: Token,
    slot: Option<S>,
}

/// The slab.
#[derive(Debug)]
pub(crate) struct Slots<S> {
    cells: Vec<Cell<S>>,
    vacant: Vec<u32>,
    live: usize,
    first_generation: u32,
}

impl<S> Slots<S> {
    /// The size of a slot without its value.
    #[cfg(test)]
    pub(crate) const CELL_BYTES: usize = std::mem::size_of::<Cell<S>>();

    /// Makes an empty slab whose slots begin with `generation`.
    pub(crate) fn starting_at(generation: u32) -> Self {
        Self {
            cells: Vec::new(),
            vacant: Vec::new(),
            live: 0,
            first_generation: generation,
        }
    }

    // Without the attribute the compiler does not inline it, and copies the slot twice: 25 instructions more
    // for each registration.
    #[inline(always)]
    pub(crate) fn insert(&mut self, slot: S) -> Token {
        step();
        self.live += 1;
        match self.vacant.pop() {
            Some(index) => {
                let cell = &mut self.cells[index as usize];
                cell.slot = Some(slot);
                cell.token
            }
            None => self.append(slot),
        }
    }

    #[cold]
    fn append(&mut self, slot: S) -> Token {
        let index = u32::try_from(self.cells.len())
            .ok()
            .filter(|index| *index != u32::MAX);
        let index = index.expect("fewer than 2^32 - 1 slots");
        let token = Token::new(index, self.first_generation);
        self.cells.push(Cell {
            token,
            slot: Some(slot),
        });
        token
    }

    /// Removes the content of a slot, and ends its generation. A slot without further generations is never used again, because its
    /// tokens would repeat.
    #[inline(always)]
    pub(crate) fn remove(&mut self, token: Token) -> Option<S> {
        step();
        let cell = self.cells.get_mut(token.index() as usize)?;
        if cell.token != token {
            return None;
        }
        let slot = cell.slot.take()?;
        self.live -= 1;
        if let Some(next) = token.generation().checked_add(1) {
            cell.token = Token::new(token.index(), next);
            self.vacant.push(token.index());
        }
        Some(slot)
    }

    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&S> {
        step();
        let cell = self.cells.get(token.index() as usize)?;
        if cell.token != token {
            return None;
        }
        cell.slot.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut S> {
        step();
        let cell = self.cells.get_mut(token.index() as usize)?;
        if cell.token != token {
            return None;
        }
        cell.slot.as_mut()
    }

    /// Returns the token of the live slot at `index`.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> Option<Token> {
        step();
        let cell = self.cells.get(index as usize)?;
        cell.slot.as_ref().map(|_| cell.token)
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Returns all live slots. It walks over every slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, &S)> {
        self.cells.iter().filter_map(|cell| {
            step();
            let slot = cell.slot.as_ref()?;
            Some((cell.token, slot))
        })
    }

    /// Checks that every slot is live, or vacant and listed once, or retired.
    pub(crate) fn check(&self) {
        let mut listed = vec![false; self.cells.len()];
        for index in &self.vacant {
            let index = *index as usize;
            assert!(
                !std::mem::replace(&mut listed[index], true),
                "slot {index} would be given out twice"
            );
        }
        let mut live = 0;
        for (cell, listed) in self.cells.iter().zip(listed) {
            live += usize::from(cell.slot.is_some());
            let retired = cell.token.generation() == u32::MAX;
            assert!(
                if cell.slot.is_some() {
                    !listed
                } else {
                    listed || retired
                },
                "a slot is lost, or given out while it is live"
            );
        }
        assert_eq!(live, self.live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_a_token_names_one_registration_for_ever() {
        let mut slots = Slots::starting_at(0);
        let mut former = Vec::new();
        for value in 0..1000 {
            let token = slots.insert(value);
            assert_eq!(slots.get(token), Some(&value));
            assert!(former.iter().all(|old| slots.get(*old).is_none()));
            assert_eq!(slots.remove(token), Some(value));
            assert_eq!(slots.remove(token), None);
            former.push(token);
        }
        assert_eq!(slots.cells.len(), 1, "the slot was used again each time");
        slots.check();
    }

    #[test]
    fn r2_a_slot_that_has_used_up_its_generations_is_retired() {
        let mut slots = Slots::starting_at(u32::MAX - 1);
        let first = slots.insert(1);
        assert!(slots.remove(first).is_some());
        let second = slots.insert(2);
        assert_eq!((second.index(), second.generation()), (first.index(), u32::MAX));
        assert!(slots.remove(second).is_some());
        let third = slots.insert(3);
        assert_ne!(third.index(), first.index(), "its generations are used up");
        assert!(slots.get(first).is_none() && slots.get(second).is_none());
        assert_eq!(slots.remove(second), None, "retired once, not twice");
        assert_eq!(slots.at(first.index()), None);
        assert_eq!(slots.iter().count(), 1);
        slots.check();
    }

    #[test]
    fn r2_a_token_from_elsewhere_finds_nothing() {
        let mut slots = Slots::starting_at(0);
        let token = slots.insert(());
        for stranger in [
            Token::new(token.index(), token.generation() + 1),
            Token::new(token.index() + 1, 0),
            Token::new(u32::MAX, u32::MAX),
        ] {
            assert!(slots.get(stranger).is_none() && slots.remove(stranger).is_none());
        }
        assert!(slots.get(token).is_some());
    }
}
