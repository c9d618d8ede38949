//! A 4-ary heap of deadlines whose entries can be found, moved and taken out.
//!
//! An entry is one number of 128 bits, so that two of them compare without a branch and four children lie in about one cache
//! line. Where each entry is lies in `nodes`, by slot, beside what is needed to recognise an id: to arm a timer touches one
//! node and the entries on its way, and nothing else. It never looks at what the timers are.

use alloc::vec::Vec;

use crate::{Moment, TimerId};

const ARITY: usize = 4;

/// The deadline, then the order of arming, then the slot: 64, 32 and 32 bits, so that numbers compare as they are to fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u128);

impl Entry {
    const fn new(deadline: Moment, sequence: u32, slot: u32) -> Self {
        Self((deadline.as_nanos() as u128) << 64 | (sequence as u128) << 32 | slot as u128)
    }

    const fn deadline(self) -> Moment {
        Moment::from_nanos((self.0 >> 64) as u64)
    }

    const fn slot(self) -> u32 {
        self.0 as u32
    }
}

/// Where a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Armed: at this index of the heap.
    Armed(usize),
    /// Neither armed nor due.
    Idle,
    /// Set apart by a run, and not taken yet.
    Due,
}

/// A slot's side of the heap. The last three numbers are no indices.
#[derive(Clone, Copy, Debug)]
struct Node {
    generation: u32,
    place: u32,
}

const IDLE: u32 = u32::MAX;
const DUE: u32 = u32::MAX - 1;
/// The slot is vacant.
const GONE: u32 = u32::MAX - 2;

/// The heap, and the slots.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    entries: Vec<Entry>,
    nodes: Vec<Node>,
    /// Of the next arming.
    sequence: u32,
}

impl Heap {
    /// A new slot, idle.
    ///
    /// # Panics
    /// With more than four thousand million of them.
    pub(crate) fn add(&mut self) -> TimerId {
        let slot = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        assert!(slot < GONE, "more than four thousand million timers");
        self.nodes.push(Node {
            generation: 0,
            place: IDLE,
        });
        TimerId { slot, generation: 0 }
    }

    /// Takes a vacant slot into use again.
    pub(crate) fn revive(&mut self, slot: u32) -> TimerId {
        let node = &mut self.nodes[slot as usize];
        node.place = IDLE;
        TimerId {
            slot,
            generation: node.generation,
        }
    }

    /// Makes an idle slot vacant; its id names nothing from now on. False if it has used up its generations, and cannot be
    /// revived.
    pub(crate) fn retire(&mut self, slot: u32) -> bool {
        let node = &mut self.nodes[slot as usize];
        node.place = GONE;
        match node.generation.checked_add(1) {
            Some(next) => node.generation = next,
            None => return false,
        }
        true
    }

    /// The id of a slot that is in use.
    pub(crate) fn id(&self, slot: u32) -> TimerId {
        TimerId {
            slot,
            generation: self.nodes[slot as usize].generation,
        }
    }

    /// Where a timer is; `None` for an id that names nothing.
    #[inline]
    pub(crate) fn place(&self, id: TimerId) -> Option<Place> {
        let node = self.nodes.get(id.slot as usize)?;
        if node.generation != id.generation {
            return None;
        }
        match node.place {
            GONE => None,
            DUE => Some(Place::Due),
            IDLE => Some(Place::Idle),
            index => Some(Place::Armed(index as usize)),
        }
    }

    /// The earliest deadline and its slot.
    #[inline]
    pub(crate) fn first(&self) -> Option<(Moment, u32)> {
        self.entries.first().map(|entry| (entry.deadline(), entry.slot()))
    }

    /// The deadline at an index.
    pub(crate) fn deadline(&self, index: usize) -> Moment {
        self.entries[index].deadline()
    }

    /// Puts a slot in that is not armed.
    #[inline]
    pub(crate) fn push(&mut self, slot: u32, deadline: Moment) {
        let entry = Entry::new(deadline, self.next_sequence(), slot);
        self.entries.push(entry);
        self.rise(self.entries.len() - 1, entry);
    }

    /// Moves an armed slot.
    #[inline]
    pub(crate) fn shift(&mut self, index: usize, slot: u32, deadline: Moment) {
        let entry = Entry::new(deadline, self.next_sequence(), slot);
        self.replace(index, entry);
    }

    /// Takes the entry at `index` out; its slot is idle then.
    #[inline]
    pub(crate) fn take(&mut self, index: usize) {
        let taken = self.entries[index];
        self.nodes[taken.slot() as usize].place = IDLE;
        let Some(last) = self.entries.pop() else { return };
        if index < self.entries.len() {
            self.replace(index, last);
        }
    }

    /// Takes the earliest entry out; its slot is due then.
    pub(crate) fn take_first_as_due(&mut self) {
        if let Some((_, slot)) = self.first() {
            self.take(0);
            self.nodes[slot as usize].place = DUE;
        }
    }

    /// A slot that was due is idle again.
    pub(crate) fn undue(&mut self, slot: u32) {
        self.nodes[slot as usize].place = IDLE;
    }

    /// Puts `entry` in the place of the one at `index`, and then where it belongs.
    #[inline]
    fn replace(&mut self, index: usize, entry: Entry) {
        if entry < self.entries[index] {
            self.rise(index, entry);
        } else {
            self.sink(index, entry);
        }
    }

    #[inline]
    fn next_sequence(&mut self) -> u32 {
        if self.sequence == u32::MAX {
            self.renumber();
        }
        self.sequence += 1;
        self.sequence
    }

    /// Numbers all entries anew, in their order, which stays what it is: once in four thousand million armings.
    #[cold]
    fn renumber(&mut self) {
        let mut sorted = core::mem::take(&mut self.entries);
        sorted.sort_unstable();
        self.sequence = 0;
        for entry in &mut sorted {
            self.sequence += 1;
            *entry = Entry::new(entry.deadline(), self.sequence, entry.slot());
        }
        // What is sorted is a heap.
        for (index, entry) in sorted.iter().enumerate() {
            self.nodes[entry.slot() as usize].place = index as u32;
        }
        self.entries = sorted;
    }

    #[inline]
    fn settle(&mut self, index: usize, entry: Entry) {
        self.entries[index] = entry;
        self.nodes[entry.slot() as usize].place = index as u32;
    }

    /// Moves `entry` from `index` towards the root until its parent is earlier.
    #[inline]
    fn rise(&mut self, mut index: usize, entry: Entry) {
        while index > 0 {
            let above = (index - 1) / ARITY;
            let parent = self.entries[above];
            if parent <= entry {
                break;
            }
            self.settle(index, parent);
            index = above;
        }
        self.settle(index, entry);
    }

    /// Moves `entry` from `index` away from the root until all children are later.
    #[inline]
    fn sink(&mut self, mut index: usize, entry: Entry) {
        loop {
            let first = index * ARITY + 1;
            let Some((child, below)) = self.least_of(first) else {
                break;
            };
            if child >= entry {
                break;
            }
            self.settle(index, child);
            index = below;
        }
        self.settle(index, entry);
    }

    /// The least of the children that begin at `first`, and where it is.
    #[inline]
    fn least_of(&self, first: usize) -> Option<(Entry, usize)> {
        if let Some(&[a, b, c, d]) = self.entries.get(first..first + ARITY) {
            // Two matches of two each, without a branch that could be mispredicted.
            let ab = if b < a { (b, first + 1) } else { (a, first) };
            let cd = if d < c { (d, first + 3) } else { (c, first + 2) };
            return Some(if cd.0 < ab.0 { cd } else { ab });
        }
        let children = self.entries.get(first..)?;
        let (nearest, child) = children.iter().enumerate().min_by_key(|(_, child)| **child)?;
        Some((*child, first + nearest))
    }

    /// Whether every entry is where its node says, and no child is before its parent.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn check(&self) {
        for (index, entry) in self.entries.iter().enumerate() {
            assert_eq!(self.nodes[entry.slot() as usize].place as usize, index);
            assert!(index == 0 || self.entries[(index - 1) / ARITY] <= *entry);
        }
        let armed = self.nodes.iter().filter(|node| node.place < GONE).count();
        assert_eq!(armed, self.entries.len());
    }

    /// As if so many armings had been done.
    #[cfg(test)]
    pub(crate) fn age(&mut self, sequence: u32) {
        self.sequence = sequence;
    }

    /// As if the slot had been used as often as it can be.
    #[cfg(test)]
    pub(crate) fn wear_out(&mut self, slot: u32) {
        self.nodes[slot as usize].generation = u32::MAX;
    }
}
