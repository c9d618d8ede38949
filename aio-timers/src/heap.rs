//! A 4-ary heap of deadlines whose entries can be found, moved and taken out, and the slots that the entries belong to.
//!
//! An entry is one number of 128 bits, so that two of them compare without a branch, and four children are chosen from in no
//! time. Where each entry is lies in `nodes`, by slot, beside what is needed to recognise an id: to arm a timer touches one
//! node and the entries on its way, and nothing else. It never looks at what the timers are.
//!
//! The root is not the first in its array but the fourth. So children come in fours that begin at a multiple of four, the last
//! of which are [nobody](Entry::NOBODY), and what is above the root, the [roof](Entry::ROOF), stops whoever rises.

use core::num::NonZeroU32;

use alloc::vec::Vec;

use crate::{Moment, TimerId};

const ARITY: usize = 4;
const ROOT: usize = ARITY - 1;

/// The deadline, then the order of arming, then the slot: 64, 32 and 32 bits, so that numbers compare as they are to fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u128);

impl Entry {
    /// Before every entry: the first arming is number one.
    const ROOF: Self = Self(0);
    /// Behind every entry: no slot has this number.
    const NOBODY: Self = Self(u128::MAX);

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

/// The roof's for the root.
const fn parent_of(position: usize) -> usize {
    position / ARITY + ROOT - 1
}

/// The first of four.
const fn children_of(position: usize) -> usize {
    (position - (ROOT - 1)) * ARITY
}

/// Where a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Armed: at this position of the heap.
    Armed(usize),
    /// Neither armed nor due.
    Idle,
    /// Set apart by a run, and not taken yet: under this ticket.
    Due(u32),
}

/// A slot's side of the heap: eight bytes, because among a million timers each one that is looked at is a cache line.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Odd while the slot is in use. What an id carries is compared with it, and so an id of a timer that is gone matches
    /// neither the vacant slot nor who comes next.
    generation: u32,
    /// A position of the heap, or [`IDLE`], or [`DUE`] and a ticket. Of a vacant slot: the next vacant one.
    place: u32,
}

/// No position: it is above the root.
const IDLE: u32 = 0;
/// Above every position.
const DUE: u32 = 1 << 31;
/// So many tickets there are, 0 and up; more than timers.
pub(crate) const TICKETS: u32 = DUE;
const MOST_SLOTS: usize = DUE as usize - ROOT - 1;
/// Room is made for so many entries at a time.
const GROWTH: usize = 16;
/// Behind the last vacant slot.
const NO_SLOT: u32 = u32::MAX;

const _: () =
    assert!(ROOT + MOST_SLOTS < DUE as usize && MOST_SLOTS > 2_000_000_000 && GROWTH.is_multiple_of(ARITY));

/// The heap, and the slots.
#[derive(Debug)]
pub(crate) struct Heap {
    /// By position. Its length is a multiple of the arity, and does not become less.
    entries: Vec<Entry>,
    /// The position behind the last entry.
    end: usize,
    nodes: Vec<Node>,
    /// The slot that became vacant last.
    vacant: u32,
    /// Of the last arming.
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

    /// A slot, idle: the one that became vacant last, or else a new one, whose number is that of the slots before.
    ///
    /// # Panics
    /// With more than two thousand million of them.
    pub(crate) fn add(&mut self) -> TimerId {
        let slot = self.vacant;
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            self.vacant = node.place;
            node.generation += 1;
            node.place = IDLE;
            return self.id(slot);
        }
        assert!(
            self.nodes.len() < MOST_SLOTS,
            "more than two thousand million timers"
        );
        self.nodes.push(Node {
            generation: 1,
            place: IDLE,
        });
        self.id(self.nodes.len() as u32 - 1)
    }

    /// Makes an idle slot vacant; its id names nothing from now on. A slot that has used up its generations stays out of use.
    pub(crate) fn retire(&mut self, slot: u32) {
        let node = &mut self.nodes[slot as usize];
        node.generation = node.generation.wrapping_add(1);
        if node.generation != 0 {
            node.place = self.vacant;
            self.vacant = slot;
        }
    }

    /// The id of a slot that is in use.
    #[inline]
    pub(crate) fn id(&self, slot: u32) -> TimerId {
        TimerId {
            slot,
            // The lowest bit is set: the slot is in use.
            generation: NonZeroU32::MIN | self.nodes[slot as usize].generation,
        }
    }

    /// Where a timer is; `None` for an id that names nothing.
    #[inline]
    pub(crate) fn place(&self, id: TimerId) -> Option<Place> {
        let node = self.nodes.get(id.slot as usize)?;
        if node.generation != id.generation.get() {
            return None;
        }
        Some(match node.place {
            IDLE => Place::Idle,
            due if due >= DUE => Place::Due(due - DUE),
            position => Place::Armed(position as usize),
        })
    }

    /// The earliest deadline and its slot.
    #[inline]
    pub(crate) fn first(&self) -> Option<(Moment, u32)> {
        let first = *self.entries.get(ROOT)?;
        (first != Entry::NOBODY).then(|| (first.deadline(), first.slot()))
    }

    /// The deadline at a position.
    #[inline]
    pub(crate) fn deadline(&self, position: usize) -> Moment {
        self.entries[position].deadline()
    }

    /// Puts a slot in that is not armed; true if it is the first now.
    #[inline]
    pub(crate) fn push(&mut self, slot: u32, deadline: Moment) -> bool {
        let position = self.end;
        if self.sequence == u32::MAX || position >= self.entries.len() {
            return self.push_with_room(slot, deadline);
        }
        self.end += 1;
        self.sequence += 1;
        let entry = Entry::new(deadline, self.sequence, slot);
        // Most rise no step at all. Those that do are served elsewhere, so that these are quick.
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
            self.entries.resize(self.entries.len() + GROWTH, Entry::NOBODY);
            self.entries[..ROOT].fill(Entry::ROOF);
        }
        self.push(slot, deadline)
    }

    /// Moves an armed slot; true if it is the first now.
    ///
    /// The parent and the children tell which way it goes. What was there before would, too, but it is not read at all: in a
    /// large heap it is far away, and which of the two is earlier cannot be foreseen.
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
            // It stays where its node says that it is.
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
        self.shift(self.nodes[slot as usize].place as usize, slot, deadline)
    }

    /// Takes the entry at a position out; its slot is idle then.
    #[inline]
    pub(crate) fn take(&mut self, position: usize) {
        self.undue(self.entries[position].slot());
        self.end -= 1;
        let last = core::mem::replace(&mut self.entries[self.end], Entry::NOBODY);
        if position != self.end {
            self.replace(position, last);
        }
    }

    /// Takes the earliest entry out; its slot is due then.
    #[inline]
    pub(crate) fn take_first_as_due(&mut self, ticket: u32) {
        let slot = self.entries[ROOT].slot();
        self.take(ROOT);
        self.nodes[slot as usize].place = DUE | ticket;
    }

    /// A slot that was due is idle again.
    #[inline]
    pub(crate) fn undue(&mut self, slot: u32) {
        self.nodes[slot as usize].place = IDLE;
    }

    /// Puts the entry of another position in the place of the one at `position`, and then where it belongs.
    #[inline(never)]
    fn replace(&mut self, position: usize, entry: Entry) {
        if entry < self.entries[parent_of(position)] {
            self.rise(position, entry);
        } else {
            self.sink(position, entry);
        }
    }

    /// Numbers all entries anew, in their order, which stays what it is: once in four thousand million armings.
    #[cold]
    #[inline(never)]
    fn renumber(&mut self) {
        if let Some(entries) = self.entries.get_mut(ROOT..self.end) {
            // What is sorted is a heap.
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
        self.nodes[entry.slot() as usize].place = position as u32;
    }

    /// Moves `entry` from `position` towards the root until its parent is earlier; says where that is.
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

    /// Moves `entry` from `position` away from the root until all children are later.
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

    /// The earliest child, which may be nobody, and where it is. `None` if there is none.
    #[inline]
    fn first_child(&self, position: usize) -> Option<(Entry, usize)> {
        let first = children_of(position);
        if first >= self.end {
            return None;
        }
        let &[a, b, c, d] = self.entries.get(first..first + ARITY)? else {
            return None;
        };
        // Two matches of two each, without a branch that could be mispredicted.
        let ab = if b < a { (b, first + 1) } else { (a, first) };
        let cd = if d < c { (d, first + 3) } else { (c, first + 2) };
        Some(if cd.0 < ab.0 { cd } else { ab })
    }
}

#[cfg(any(test, feature = "fuzz"))]
impl Heap {
    /// Whether every entry is where its node says, no child is before its parent, and what is no entry is what it should be.
    pub(crate) fn check(&self) {
        for position in ROOT..self.end {
            let entry = self.entries[position];
            assert_eq!(self.nodes[entry.slot() as usize].place as usize, position);
            assert!(self.entries[parent_of(position)] < entry);
        }
        let (first, last) = (ROOT.min(self.entries.len()), self.end.min(self.entries.len()));
        assert!(self.entries[..first].iter().all(|roof| *roof == Entry::ROOF));
        assert!(self.entries[last..].iter().all(|nobody| *nobody == Entry::NOBODY));
        assert!(self.entries.len().is_multiple_of(ARITY));
        let is_armed =
            |node: &&Node| node.generation % 2 == 1 && (ROOT..DUE as usize).contains(&(node.place as usize));
        assert_eq!(self.nodes.iter().filter(is_armed).count(), self.end - ROOT);
    }
}

#[cfg(test)]
impl Heap {
    /// As if so many armings had been done.
    pub(crate) fn age(&mut self, sequence: u32) {
        self.sequence = sequence;
    }

    /// As if the slot had been used as often as it can be.
    pub(crate) fn wear_out(&mut self, slot: u32) {
        self.nodes[slot as usize].generation = u32::MAX;
    }
}
