//! [`Slots`]: the state of each source, found by token in O(1).
//!
//! A source's state is a set of flags in its slot, not membership in lists that are searched. The two queues of slots hold
//! each slot at most once; an entry whose flags need no action any more is dropped when it reaches the front.
//!
//! # Flags
//! | flag | meaning |
//! |---|---|
//! | `BEGUN` | `poll_begin` was called, and `poll_end` was not |
//! | `HIT` | `poll` returned `true`, the caller took the hit, and it has not been served |
//! | `RECHECK` | to be polled before the next sleep: it lost its `BEGUN`, or its `poll` returned `true`, and since then it has neither been served nor polled with `false` |
//! | `DEMOTED` | idle: not polled until its next event |
//! | `SUSPENDED` | not polled until it is resumed |
//! | `EXCLUDED` | its handler runs |
//! | `NESTS` | is never excluded |
//! | `ABSENT` | its source joined during a walk, and is put into its array when the walk ends |
//! | `GONE` | it left during a walk, and is taken out of its array when the walk ends |
//! | `IN_RECHECKS`, `IN_BEGINS` | its slot is in that queue |
//! | `FREE` | the slot belongs to no source |
//!
//! `RECHECK` and `DEMOTED` exclude each other. `BEGUN` excludes `DEMOTED` and `GONE`. It also excludes
//! `SUSPENDED`, except until a due `poll_end` is called.

mod hits;

use std::collections::VecDeque;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

use aio_backend::Token;

use crate::due::Due;
use crate::steps::step;

pub(crate) use hits::Marked;

/// The number for no slot, or no position.
pub(crate) const NONE: u32 = u32::MAX;

/// The flags of a slot; the table of the module explains them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u16);

impl Flags {
    pub(crate) const EMPTY: Self = Self(0);
    pub(crate) const BEGUN: Self = Self(1);
    pub(crate) const HIT: Self = Self(1 << 1);
    pub(crate) const RECHECK: Self = Self(1 << 2);
    pub(crate) const DEMOTED: Self = Self(1 << 3);
    pub(crate) const SUSPENDED: Self = Self(1 << 4);
    pub(crate) const EXCLUDED: Self = Self(1 << 5);
    pub(crate) const NESTS: Self = Self(1 << 6);
    pub(crate) const ABSENT: Self = Self(1 << 7);
    pub(crate) const GONE: Self = Self(1 << 8);
    pub(crate) const IN_RECHECKS: Self = Self(1 << 9);
    pub(crate) const IN_BEGINS: Self = Self(1 << 10);
    pub(crate) const FREE: Self = Self(1 << 11);

    /// Set if the slot is not among the promoted sources, or its array has another source.
    pub(crate) const OUT: Self = Self(Self::DEMOTED.0 | Self::SUSPENDED.0 | Self::ABSENT.0 | Self::GONE.0);
    /// Set if the source is not to be polled.
    pub(crate) const SKIPPED: Self = Self(Self::OUT.0 | Self::EXCLUDED.0);
    /// Set if the source is not a promoted one, whether its array has it or not.
    const NOT_PROMOTED: Self = Self(Self::DEMOTED.0 | Self::SUSPENDED.0 | Self::GONE.0);
    /// The flags to check before a source is served. If only `HIT` is set, the common path serves it.
    const SERVED: Self =
        Self(Self::HIT.0 | Self::RECHECK.0 | Self::SUSPENDED.0 | Self::EXCLUDED.0 | Self::NESTS.0);
    /// Set if a recheck cannot be made now.
    const NOT_DUE: Self = Self(Self::SUSPENDED.0 | Self::EXCLUDED.0 | Self::GONE.0);

    #[inline]
    pub(crate) fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    #[inline]
    pub(crate) fn without(self, others: Self) -> Self {
        self & !others
    }

    /// Adds the flags if `condition` is `true`.
    #[inline]
    pub(crate) fn with_if(self, others: Self, condition: bool) -> Self {
        if condition { self | others } else { self }
    }

    #[inline]
    fn is_due(self) -> bool {
        self.has_any(Self::RECHECK) && !self.has_any(Self::NOT_DUE)
    }

    #[inline]
    pub(crate) fn is_promoted(self) -> bool {
        !self.has_any(Self::NOT_PROMOTED)
    }
}

impl BitOr for Flags {
    type Output = Self;
    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Flags {
    type Output = Self;
    #[inline]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Flags {
    type Output = Self;
    #[inline]
    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// The state of one source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) token: Token,
    /// Its position in its array, or [`NONE`]; for a free slot, the next free one.
    pub(crate) at: u32,
    /// The round of its last event, or the one in which it joined.
    pub(crate) last_event: u32,
    /// The number of guards that exclude it.
    pub(crate) excluded: u32,
    pub(crate) array: u16,
    /// Changed only by the methods of [`Slots`], which keep the counts.
    flags: Flags,
}

impl Slot {
    #[inline]
    pub(crate) fn flags(&self) -> Flags {
        self.flags
    }
}

/// The slots, and the queues of those with a pending recheck or `poll_begin`.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    /// The slot of each token, by the token's index.
    index: Vec<u32>,
    free: u32,
    rechecks: VecDeque<u32>,
    begins: VecDeque<u32>,
    sources: usize,
    promoted: usize,
    /// The rechecks that can be made now.
    pub(crate) due: Due,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            index: Vec::new(),
            free: NONE,
            rechecks: VecDeque::new(),
            begins: VecDeque::new(),
            sources: 0,
            promoted: 0,
            due: Due::default(),
        }
    }
}

impl Slots {
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &Slot {
        step();
        &self.slots[slot as usize]
    }

    #[cfg(test)]
    pub(crate) fn try_get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut Slot {
        step();
        &mut self.slots[slot as usize]
    }

    /// Returns the slot of a source.
    #[inline]
    pub(crate) fn find(&self, token: Token) -> Option<u32> {
        let slot = self.occupant(token)?;
        (self.slots[slot as usize].token == token).then_some(slot)
    }

    /// Returns the slot of the source whose token has the same index, in any generation.
    #[inline]
    pub(crate) fn occupant(&self, token: Token) -> Option<u32> {
        step();
        let slot = self.index.get(token.index() as usize).copied();
        slot.filter(|slot| *slot != NONE)
    }

    /// Makes a slot for a source that is not in an array yet. The token's index has no occupant.
    pub(crate) fn add(&mut self, token: Token, flags: Flags, last_event: u32) -> u32 {
        step();
        let fresh = Slot {
            token,
            at: NONE,
            last_event,
            excluded: 0,
            array: 0,
            flags: flags | Flags::ABSENT,
        };
        let slot = match self.slots.get_mut(self.free as usize) {
            Some(free) => {
                let slot = std::mem::replace(&mut self.free, free.at);
                // The slot may still be in a queue.
                let queues = free.flags & (Flags::IN_RECHECKS | Flags::IN_BEGINS);
                *free = fresh;
                free.flags |= queues;
                slot
            }
            None => {
                self.slots.push(fresh);
                self.slots.len() as u32 - 1
            }
        };
        let index = token.index() as usize;
        if self.index.len() <= index {
            self.index.resize(index + 1, NONE);
        }
        self.index[index] = slot;
        self.sources += 1;
        self.promoted += usize::from(fresh.flags.is_promoted());
        slot
    }

    /// Removes the token of a source. From now on its slot is `GONE`.
    pub(crate) fn leave(&mut self, slot: u32) {
        let index = self.get(slot).token.index() as usize;
        self.index[index] = NONE;
        self.sources -= 1;
        self.edit(slot, |flags| {
            flags.without(Flags::BEGUN | Flags::HIT | Flags::RECHECK) | Flags::GONE
        });
    }

    /// Frees the slot of a source that has left and is not in an array any more.
    pub(crate) fn release(&mut self, slot: u32) {
        let free = std::mem::replace(&mut self.free, slot);
        let slot = self.get_mut(slot);
        debug_assert!(
            slot.flags.has_any(Flags::GONE),
            "only those that left are released"
        );
        slot.flags |= Flags::FREE;
        slot.at = free;
        slot.excluded = 0;
    }

    /// Changes the flags of a slot, keeps the counts right, and queues the slot if a recheck has become due.
    pub(crate) fn edit(&mut self, slot: u32, change: impl FnOnce(Flags) -> Flags) {
        step();
        let entry = &mut self.slots[slot as usize];
        let before = entry.flags;
        let after = change(before);
        entry.flags = after;
        self.due.change(before.is_due(), after.is_due());
        self.promoted = self.promoted + usize::from(after.is_promoted()) - usize::from(before.is_promoted());
        self.queue_recheck(slot);
    }

    /// Queues the source's `poll_begin`, which comes before its next poll.
    pub(crate) fn queue_begin(&mut self, slot: u32) {
        if !self.get(slot).flags.has_any(Flags::IN_BEGINS) {
            self.get_mut(slot).flags |= Flags::IN_BEGINS;
            self.begins.push_back(slot);
        }
    }

    /// Records the `poll_begin` of a source and returns `true`, if the source is promoted and has not begun.
    /// The caller then calls it.
    #[inline]
    pub(crate) fn take_begin(&mut self, slot: u32) -> bool {
        let entry = self.get_mut(slot);
        let is_new = !entry.flags.has_any(Flags::BEGUN | Flags::OUT);
        if is_new {
            entry.flags |= Flags::BEGUN;
        }
        is_new
    }

    /// Records the `poll_end` of a source and returns `true`, if one is due. The source is then marked for a
    /// recheck, which the caller [queues](Self::queue_recheck).
    #[inline]
    pub(crate) fn take_end(&mut self, slot: u32) -> bool {
        let entry = self.get_mut(slot);
        let before = entry.flags;
        let is_begun = before.has_any(Flags::BEGUN);
        if is_begun {
            entry.flags = before.without(Flags::BEGUN) | Flags::RECHECK;
            self.due
                .change(before.has_any(Flags::RECHECK | Flags::NOT_DUE), true);
        }
        is_begun
    }

    /// Returns `true` if the mark of a promoted source requires a poll.
    #[inline]
    pub(crate) fn is_recheck_due(&self, slot: u32) -> bool {
        let flags = self.get(slot).flags;
        flags.has_any(Flags::RECHECK) && !flags.has_any(Flags::SKIPPED)
    }

    /// Clears the mark of a source whose `poll` returned `false`, unless it was suspended or replaced
    /// meanwhile.
    #[inline]
    pub(crate) fn clear_recheck(&mut self, slot: u32) {
        let entry = self.get_mut(slot);
        let before = entry.flags;
        if !before.has_any(Flags::OUT) {
            entry.flags = before.without(Flags::RECHECK);
            self.due.change(before.is_due(), false);
        }
    }

    /// Queues a slot if its recheck is due.
    pub(crate) fn queue_recheck(&mut self, slot: u32) {
        let entry = self.get_mut(slot);
        if entry.flags.is_due() && !entry.flags.has_any(Flags::IN_RECHECKS) {
            entry.flags |= Flags::IN_RECHECKS;
            self.rechecks.push_back(slot);
        }
    }

    /// Returns the next slot whose `poll_begin` is pending, now `BEGUN`, among the first `among` of the
    /// queue.
    pub(crate) fn next_begin(&mut self, among: &mut usize) -> Option<u32> {
        while *among > 0 {
            *among -= 1;
            let slot = self.begins.pop_front()?;
            let entry = self.get_mut(slot);
            entry.flags = entry.flags.without(Flags::IN_BEGINS);
            let flags = entry.flags;
            if !flags.has_any(Flags::BEGUN | Flags::OUT) {
                entry.flags |= Flags::BEGUN;
                return Some(slot);
            }
            if flags.is_promoted() && flags.has_any(Flags::ABSENT) {
                // It begins only after it is in its array.
                self.queue_begin(slot);
            }
        }
        None
    }

    pub(crate) fn clear_begins(&mut self) {
        while let Some(slot) = self.begins.pop_front() {
            let entry = self.get_mut(slot);
            entry.flags = entry.flags.without(Flags::IN_BEGINS);
        }
    }

    /// Returns the length of the queue of pending `poll_begin` calls.
    #[inline]
    pub(crate) fn begins(&self) -> usize {
        self.begins.len()
    }

    /// Returns the next slot with a due recheck, among the first `among` of the queue. It goes to the end of
    /// the queue.
    pub(crate) fn next_recheck(&mut self, among: &mut usize) -> Option<u32> {
        while *among > 0 {
            *among -= 1;
            let slot = self.rechecks.pop_front()?;
            let entry = self.get_mut(slot);
            if entry.flags.is_due() {
                self.rechecks.push_back(slot);
                if !self.get(slot).flags.has_any(Flags::ABSENT) {
                    return Some(slot);
                }
            } else {
                entry.flags = entry.flags.without(Flags::IN_RECHECKS);
            }
        }
        None
    }

    /// Moves the slot that [`next_recheck`](Self::next_recheck) has returned back to the front.
    pub(crate) fn recheck_first(&mut self, slot: u32) {
        if self.rechecks.back() == Some(&slot) {
            self.rechecks.rotate_right(1);
        }
    }

    /// Returns the length of the queue of pending rechecks.
    pub(crate) fn rechecks(&self) -> usize {
        self.rechecks.len()
    }

    /// Returns the number of sources in any state.
    pub(crate) fn sources(&self) -> usize {
        self.sources
    }

    /// Returns the number of promoted sources.
    pub(crate) fn promoted(&self) -> usize {
        self.promoted
    }
}
