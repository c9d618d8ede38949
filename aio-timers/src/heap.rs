//! A 4-ary heap of deadlines whose entries can be found, moved and taken out.
//!
//! The keys lie inline in the heap's array, four children beside each other, so that a step down reads about one cache
//! line; where each entry is lies in `places`, by slot. It never looks at what the timers are.

use alloc::vec::Vec;

use crate::Moment;

const ARITY: usize = 4;
const NOWHERE: u32 = u32::MAX;

/// What the heap is ordered by: the deadline, then the order of arming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) deadline: Moment,
    pub(crate) sequence: u64,
}

/// The heap; entries are slots below 2^32 - 1.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    entries: Vec<(Key, u32)>,
    places: Vec<u32>,
}

impl Heap {
    pub(crate) fn first(&self) -> Option<(Key, u32)> {
        self.entries.first().copied()
    }

    pub(crate) fn key(&self, slot: u32) -> Option<Key> {
        self.place(slot).map(|place| self.entries[place].0)
    }

    /// Puts a slot in, or moves it if it is in already.
    pub(crate) fn put(&mut self, slot: u32, key: Key) {
        if let Some(place) = self.place(slot) {
            let former = core::mem::replace(&mut self.entries[place].0, key);
            if key < former {
                self.rise(place)
            } else {
                self.sink(place)
            }
            return;
        }
        let index = slot as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, NOWHERE);
        }
        self.entries.push((key, slot));
        self.rise(self.entries.len() - 1);
    }

    /// Takes a slot out; false if it was not in.
    pub(crate) fn take(&mut self, slot: u32) -> bool {
        let Some(place) = self.place(slot) else {
            return false;
        };
        self.places[slot as usize] = NOWHERE;
        let (former, _) = self.entries.swap_remove(place);
        if let Some((key, _)) = self.entries.get(place) {
            if *key < former {
                self.rise(place)
            } else {
                self.sink(place)
            }
        }
        true
    }

    fn place(&self, slot: u32) -> Option<usize> {
        self.places
            .get(slot as usize)
            .filter(|place| **place != NOWHERE)
            .map(|place| *place as usize)
    }

    fn settle(&mut self, place: usize, entry: (Key, u32)) {
        self.entries[place] = entry;
        self.places[entry.1 as usize] = place as u32;
    }

    /// Moves the entry at `place` towards the root until its parent is not later.
    fn rise(&mut self, mut place: usize) {
        let entry = self.entries[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.entries[parent].0 <= entry.0 {
                break;
            }
            self.settle(place, self.entries[parent]);
            place = parent;
        }
        self.settle(place, entry);
    }

    /// Moves the entry at `place` away from the root until no child is earlier.
    fn sink(&mut self, mut place: usize) {
        let entry = self.entries[place];
        loop {
            let first = place * ARITY + 1;
            let Some(children) = self.entries.get(first..self.entries.len().min(first + ARITY)) else {
                break;
            };
            let Some((nearest, child)) = children.iter().enumerate().min_by_key(|(_, child)| child.0) else {
                break;
            };
            if child.0 >= entry.0 {
                break;
            }
            let (child, from) = (*child, first + nearest);
            self.settle(place, child);
            place = from;
        }
        self.settle(place, entry);
    }

    /// Whether every entry is where `places` says, and no child is before its parent.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        for (place, (key, slot)) in self.entries.iter().enumerate() {
            assert_eq!(self.places[*slot as usize] as usize, place);
            assert!(place == 0 || self.entries[(place - 1) / ARITY].0 <= *key);
        }
        assert_eq!(
            self.places.iter().filter(|place| **place != NOWHERE).count(),
            self.entries.len()
        );
    }
}
