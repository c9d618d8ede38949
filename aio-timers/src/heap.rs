//! An indexed 4-ary heap of deadlines, and the slots that its entries belong to.
//!
//! An entry is one number of 128 bits, so two entries compare without a branch, and the earliest of four
//! children is found without one. `nodes` holds the position of each slot's entry, and the generation with
//! which an id is compared: arming a timer touches only one node and the entries on its path. The heap does
//! not depend on the timers' values.
//!
//! The root is the fourth element of the array. Groups of four children therefore begin at a multiple of four. The last group
//! is filled up with [`Entry::NONE`], and a [sentinel](Entry::SENTINEL) above the root stops an entry that rises.

use core::num::NonZeroU32;

use alloc::vec::Vec;

use crate::{Moment, TimerId};

const ARITY: usize = 4;
const ROOT: usize = ARITY - 1;

/// The deadline, then the sequence number of the arming, then the slot: 64, 32 and 32 bits, so that numbers
/// compare in the order of firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u128);

impl Entry {
    /// Earlier than every entry: the first arming has sequence number one.
    const SENTINEL: Self = Self(0);
    /// Later than every entry: no slot has this number.
    const NONE: Self = Self(u128::MAX);

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

/// Returns the position of the parent; for the root, that of a sentinel.
const fn parent_of(position: usize) -> usize {
    position / ARITY + ROOT - 1
}

/// Returns the position of the first of four children.
const fn children_of(position: usize) -> usize {
    (position - (ROOT - 1)) * ARITY
}

/// The state of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Armed: the entry is at this position of the heap.
    Armed(usize),
    /// Neither armed nor due.
    Idle,
    /// A run has moved it to the due list, under this number, and has not taken it yet.
    Due(u32),
}

/// The heap's part of a slot: eight bytes, because among a million timers each node that is read costs a cache line.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Odd while the slot is in use. An id carries the generation of its timer, so the id of a removed timer matches neither
    /// the vacant slot nor the timer that uses it next.
    generation: u32,
    /// A position of the heap, or [`IDLE`], or [`DUE`] with a number of the due list. Of a vacant slot: the next vacant one.
    state: u32,
}

/// Not a position of an entry: that element is a sentinel.
const IDLE: u32 = 0;
/// Larger than every position.
const DUE: u32 = 1 << 31;
/// The due list numbers its entries modulo this; there are fewer timers.
pub(crate) const DUE_NUMBERS: u32 = DUE;
const MOST_SLOTS: usize = DUE as usize - ROOT - 1;
/// The number of entries by which the array grows.
const GROWTH: usize = 16;
/// Marks the end of the list of vacant slots.
const NO_SLOT: u32 = u32::MAX;

const _: () =
    assert!(ROOT + MOST_SLOTS < DUE as usize && MOST_SLOTS > 2_000_000_000 && GROWTH.is_multiple_of(ARITY));

/// The heap, and the slots.
#[derive(Debug)]
pub(crate) struct Heap {
    /// The entries by position. The length is a multiple of the arity and never shrinks.
    entries: Vec<Entry>,
    /// The position after the last entry.
    end: usize,
    nodes: Vec<Node>,
    /// The most recently vacated slot.
    vacant: u32,
    /// The number of the last arming.
    sequence: u32,
}

impl Heap {
    pub(crate) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            end: ROOT,
            nodes: Vec::new(),
            vacant: NO_SLOT,
            sequence: 0,
        }
    }

    /// Returns an idle slot: the most recently vacated one, or else a new one with the next number.
    ///
    /// # Panics
    /// If more than two thousand million slots are in use.
    pub(crate) fn add(&mut self) -> TimerId {
        let slot = self.vacant;
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            self.vacant = node.state;
            node.generation += 1;
            node.state = IDLE;
            return self.id(slot);
        }
        assert!(
            self.nodes.len() < MOST_SLOTS,
            "more than two thousand million timers"
        );
        self.nodes.push(Node {
            generation: 1,
            state: IDLE,
        });
        self.id(self.nodes.len() as u32 - 1)
    }

    /// Vacates an idle slot and invalidates its id. A slot that has used up its generations stays out of use.
    pub(crate) fn retire(&mut self, slot: u32) {
        let node = &mut self.nodes[slot as usize];
        node.generation = node.generation.wrapping_add(1);
        if node.generation != 0 {
            node.state = self.vacant;
            self.vacant = slot;
        }
    }

    /// Returns the id of a slot that is in use.
    #[inline]
    pub(crate) fn id(&self, slot: u32) -> TimerId {
        TimerId {
            slot,
            // The lowest bit is set: the slot is in use.
            generation: NonZeroU32::MIN | self.nodes[slot as usize].generation,
        }
    }

    /// Returns the state of a timer; `None` if the id is stale.
    #[inline]
    pub(crate) fn state(&self, id: TimerId) -> Option<State> {
        let node = self.nodes.get(id.slot as usize)?;
        if node.generation != id.generation.get() {
            return None;
        }
        Some(match node.state {
            IDLE => State::Idle,
            due if due >= DUE => State::Due(due - DUE),
            position => State::Armed(position as usize),
        })
    }

    /// Returns the earliest deadline and its slot.
    #[inline]
    pub(crate) fn first(&self) -> Option<(Moment, u32)> {
        let first = *self.entries.get(ROOT)?;
        (first != Entry::NONE).then(|| (first.deadline(), first.slot()))
    }

    /// Returns the deadline at a position.
    #[inline]
    pub(crate) fn deadline(&self, position: usize) -> Moment {
        self.entries[position].deadline()
    }

    /// Inserts an entry for a slot that is not armed. Returns whether it is now the earliest.
    #[inline]
    pub(crate) fn push(&mut self, slot: u32, deadline: Moment) -> bool {
        let position = self.end;
        if self.sequence == u32::MAX || position >= self.entries.len() {
            return self.push_with_room(slot, deadline);
        }
        self.end += 1;
        self.sequence += 1;
        let entry = Entry::new(deadline, self.sequence, slot);
        // Most entries do not rise at all, so the other case is out of line.
        if entry < self.entries[parent_of(position)] {
            return self.rise(position, entry) == ROOT;
        }
        self.settle(position, entry);
        position == ROOT
    }

    #[cold]
    #[inline(never)]
    fn push_with_room(&mut self, slot: u32, deadline: Moment) -> bool {
        if self.sequence == u32::MAX {
            self.renumber();
        }
        if self.end >= self.entries.len() {
            self.entries.resize(self.entries.len() + GROWTH, Entry::NONE);
            self.entries[..ROOT].fill(Entry::SENTINEL);
        }
        self.push(slot, deadline)
    }

    /// Moves the entry of an armed slot. Returns whether it is now the earliest.
    ///
    /// Comparisons with the parent and the children decide the direction. The former deadline would decide it
    /// as well, but this function does not read it: in a large heap it is not in the cache, and its
    /// comparison cannot be predicted.
    #[inline(never)]
    pub(crate) fn shift(&mut self, position: usize, slot: u32, deadline: Moment) -> bool {
        if self.sequence == u32::MAX {
            return self.shift_among_renumbered(slot, deadline);
        }
        self.sequence += 1;
        let entry = Entry::new(deadline, self.sequence, slot);
        if entry < self.entries[parent_of(position)] {
            return self.rise(position, entry) == ROOT;
        }
        match self.first_child(position) {
            Some((child, below)) if child < entry => {
                self.settle(position, child);
                self.sink(below, entry);
                false
            }
            // The position is still right.
            _ => {
                self.entries[position] = entry;
                position == ROOT
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn shift_among_renumbered(&mut self, slot: u32, deadline: Moment) -> bool {
        self.renumber();
        self.shift(self.nodes[slot as usize].state as usize, slot, deadline)
    }

    /// Removes the entry at a position. Its slot is then idle.
    #[inline]
    pub(crate) fn take(&mut self, position: usize) {
        self.set_idle(self.entries[position].slot());
        self.end -= 1;
        let last = core::mem::replace(&mut self.entries[self.end], Entry::NONE);
        if position != self.end {
            self.replace(position, last);
        }
    }

    /// Removes the earliest entry. Its slot is then due, under `number`.
    #[inline]
    pub(crate) fn take_first_as_due(&mut self, number: u32) {
        let slot = self.entries[ROOT].slot();
        self.take(ROOT);
        self.nodes[slot as usize].state = DUE | number;
    }

    /// Removes all entries and vacates every slot that is in use.
    pub(crate) fn clear(&mut self) {
        if let Some(entries) = self.entries.get_mut(ROOT..self.end) {
            entries.fill(Entry::NONE);
        }
        self.end = ROOT;
        for slot in 0..self.nodes.len() as u32 {
            if self.nodes[slot as usize].generation % 2 == 1 {
                self.retire(slot);
            }
        }
    }

    /// Marks a slot as idle.
    #[inline]
    pub(crate) fn set_idle(&mut self, slot: u32) {
        self.nodes[slot as usize].state = IDLE;
    }

    /// Overwrites the entry at `position` with that of another position, and restores the order.
    #[inline(never)]
    fn replace(&mut self, position: usize, entry: Entry) {
        if entry < self.entries[parent_of(position)] {
            self.rise(position, entry);
        } else {
            self.sink(position, entry);
        }
    }

    /// Renumbers all entries without changing their order. Needed once in four thousand million armings.
    #[cold]
    #[inline(never)]
    fn renumber(&mut self) {
        if let Some(entries) = self.entries.get_mut(ROOT..self.end) {
            // A sorted array is a heap.
            entries.sort_unstable();
        }
        self.sequence = 0;
        for position in ROOT..self.end {
            self.sequence += 1;
            let entry = self.entries[position];
            self.settle(
                position,
                Entry::new(entry.deadline(), self.sequence, entry.slot()),
            );
        }
    }

    #[inline]
    fn settle(&mut self, position: usize, entry: Entry) {
        self.entries[position] = entry;
        self.nodes[entry.slot() as usize].state = position as u32;
    }

    /// Moves `entry` from `position` towards the root until its parent is earlier. Returns its position.
    #[inline(never)]
    fn rise(&mut self, mut position: usize, entry: Entry) -> usize {
        loop {
            let above = parent_of(position);
            let parent = self.entries[above];
            if parent < entry {
                break;
            }
            self.settle(position, parent);
            position = above;
        }
        self.settle(position, entry);
        position
    }

    /// Moves `entry` from `position` away from the root until all its children are later.
    #[inline]
    fn sink(&mut self, mut position: usize, entry: Entry) {
        while let Some((child, below)) = self.first_child(position) {
            if entry < child {
                break;
            }
            self.settle(position, child);
            position = below;
        }
        self.settle(position, entry);
    }

    /// Returns the earliest child, which may be [`Entry::NONE`], and its position; `None` if the group is
    /// empty.
    #[inline]
    fn first_child(&self, position: usize) -> Option<(Entry, usize)> {
        let first = children_of(position);
        if first >= self.end {
            return None;
        }
        let &[a, b, c, d] = self.entries.get(first..first + ARITY)? else {
            return None;
        };
        // Compiled to conditional moves: no branch that could be mispredicted.
        let ab = if b < a { (b, first + 1) } else { (a, first) };
        let cd = if d < c { (d, first + 3) } else { (c, first + 2) };
        Some(if cd.0 < ab.0 { cd } else { ab })
    }
}

#[cfg(any(test, feature = "fuzz"))]
impl Heap {
    /// Asserts that nodes and entries agree, that no child is earlier than its parent, and that unused
    /// elements have their values.
    pub(crate) fn check(&self) {
        for position in ROOT..self.end {
            let entry = self.entries[position];
            assert_eq!(self.nodes[entry.slot() as usize].state as usize, position);
            assert!(self.entries[parent_of(position)] < entry);
        }
        let (first, last) = (ROOT.min(self.entries.len()), self.end.min(self.entries.len()));
        assert!(
            self.entries[..first]
                .iter()
                .all(|entry| *entry == Entry::SENTINEL)
        );
        assert!(self.entries[last..].iter().all(|entry| *entry == Entry::NONE));
        assert!(self.entries.len().is_multiple_of(ARITY));
        let is_armed =
            |node: &&Node| node.generation % 2 == 1 && (ROOT..DUE as usize).contains(&(node.state as usize));
        assert_eq!(self.nodes.iter().filter(is_armed).count(), self.end - ROOT);
    }
}

#[cfg(test)]
impl Heap {
    /// Sets the state after this number of armings.
    pub(crate) fn age(&mut self, sequence: u32) {
        self.sequence = sequence;
    }

    /// Sets the state after the slot was used as often as possible.
    pub(crate) fn wear_out(&mut self, slot: u32) {
        self.nodes[slot as usize].generation = u32::MAX;
    }
}
