//! [`Typed`]: the sources of one type in one array, and the loops over it.
//!
//! A poll through a `dyn` reference costs a load of the vtable and an indirect call: several times the cost
//! of most polls. A loop has many sources of few types (a thousand queues of one device). So the sources of
//! one type are stored in one array, and each loop over it has their methods inlined. Only the call of that
//! loop is indirect.
//!
//! Promoted sources come first in their array, so a round does not visit the others.
//!
//! The set decides by slot which sources are called. The arrays never change while a source runs.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::ops::ControlFlow;

use crate::Source;
use crate::slots::NONE;
use crate::state::State;
use crate::steps::step;

/// A function that gets the slot of a source with work. `Break` ends the loop.
pub(crate) type Yes<'a> = dyn FnMut(u32) -> ControlFlow<()> + 'a;

/// The array of one type, without its type.
pub(crate) trait Array {
    fn holds(&self) -> TypeId;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn len(&self) -> usize;
    /// Returns the number of sources at the beginning of the array that are promoted.
    fn promoted(&self) -> usize;
    fn set_promoted(&mut self, promoted: usize);
    /// Returns the slot of the source at a position.
    fn slot(&self, at: usize) -> u32;
    /// Appends the slots of the promoted sources.
    fn append_slots(&self, slots: &mut Vec<u32>);
    fn swap(&mut self, one: usize, other: usize);
    /// Drops the last source.
    fn pop(&mut self);

    fn poll(&self, at: u32) -> bool;
    fn poll_begin(&self, at: u32);
    fn poll_end(&self, at: u32);

    /// Polls the promoted sources from `from` on, until one has work.
    fn next_hit(&self, state: &State, from: u32) -> Next;
    /// As [`next_hit`](Self::next_hit), but ends before position `to`.
    fn next_hit_within(&self, state: &State, from: u32, to: u32) -> Next;
    /// Calls `poll_begin` of each promoted source that has not had it.
    fn begin_all(&self, state: &State);
    /// Calls each due `poll_end` of the sources from `from` on. `from` is kept up to date, so that the loop
    /// can go on after a source that panics.
    fn end_all(&self, state: &State, from: &Cell<usize>);
    /// Polls each promoted source whose recheck is due.
    fn recheck_all(&self, state: &State, yes: &mut Yes<'_>) -> ControlFlow<()>;
}

/// A source that has work, and the position where the loop goes on after it.
// Two numbers, so that the value is returned in registers.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    /// The source's slot; [`NONE`]: no source had work.
    pub(crate) slot: u32,
    /// The next position; [`NONE`] at the end.
    pub(crate) from: u32,
}

impl Next {
    pub(crate) const END: Self = Self {
        slot: NONE,
        from: NONE,
    };

    /// Makes the result for a source with work at position `at` of a loop that ends before `to`.
    #[inline]
    fn after(slot: u32, at: usize, to: usize) -> Self {
        let from = if at + 1 < to { at as u32 + 1 } else { NONE };
        Self { slot, from }
    }
}

/// The sources of one type.
pub(crate) struct Typed<S> {
    entries: Vec<Entry<S>>,
    promoted: usize,
}

struct Entry<S> {
    slot: u32,
    source: S,
}

impl<S: Source> Typed<S> {
    /// Adds a source that is not promoted yet, and returns its position.
    pub(crate) fn push(&mut self, slot: u32, source: S) -> u32 {
        let at = u32::try_from(self.entries.len()).unwrap_or(NONE);
        assert_ne!(at, NONE, "a set has at most 2^32 - 1 sources");
        self.entries.push(Entry { slot, source });
        at
    }

    /// Replaces a source and returns the former one.
    pub(crate) fn replace(&mut self, at: u32, source: S) -> S {
        std::mem::replace(&mut self.entries[at as usize].source, source)
    }

    #[inline]
    fn promoted_entries(&self) -> &[Entry<S>] {
        self.entries.get(..self.promoted).unwrap_or_default()
    }
}

impl<S: Source> Array for Typed<S> {
    fn holds(&self) -> TypeId {
        TypeId::of::<S>()
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn promoted(&self) -> usize {
        self.promoted
    }

    fn set_promoted(&mut self, promoted: usize) {
        self.promoted = promoted;
    }

    fn slot(&self, at: usize) -> u32 {
        step();
        self.entries[at].slot
    }

    fn append_slots(&self, slots: &mut Vec<u32>) {
        slots.extend(self.promoted_entries().iter().map(|entry| entry.slot));
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.entries.swap(one, other);
    }

    fn pop(&mut self) {
        drop(self.entries.pop());
    }

    fn poll(&self, at: u32) -> bool {
        self.entries[at as usize].source.poll()
    }

    fn poll_begin(&self, at: u32) {
        self.entries[at as usize].source.poll_begin();
    }

    fn poll_end(&self, at: u32) {
        self.entries[at as usize].source.poll_end();
    }

    fn next_hit(&self, state: &State, from: u32) -> Next {
        let entries = self.promoted_entries();
        for at in from as usize..entries.len() {
            // Read each time: the source that has just been polled may have removed the next one.
            if state.is_careful() {
                return self.next_hit_within(state, at as u32, NONE);
            }
            step();
            let entry = &entries[at];
            if entry.source.poll() {
                return Next::after(entry.slot, at, entries.len());
            }
        }
        Next::END
    }

    #[inline(never)]
    fn next_hit_within(&self, state: &State, from: u32, to: u32) -> Next {
        let entries = self.promoted_entries();
        let to = entries.len().min(to as usize);
        for (at, entry) in entries.iter().enumerate().take(to).skip(from as usize) {
            step();
            if !(state.is_careful() && state.skips(entry.slot)) && entry.source.poll() {
                return Next::after(entry.slot, at, to);
            }
        }
        Next::END
    }

    fn begin_all(&self, state: &State) {
        for entry in self.promoted_entries() {
            if state.slots.borrow_mut().take_begin(entry.slot) {
                entry.source.poll_begin();
            }
        }
    }

    fn end_all(&self, state: &State, from: &Cell<usize>) {
        let entries = self.promoted_entries();
        while let Some(entry) = entries.get(from.get()) {
            from.set(from.get() + 1);
            if state.slots.borrow_mut().take_end(entry.slot) {
                entry.source.poll_end();
            }
        }
    }

    fn recheck_all(&self, state: &State, yes: &mut Yes<'_>) -> ControlFlow<()> {
        for entry in self.promoted_entries() {
            if !state.slots.borrow().is_recheck_due(entry.slot) {
                continue;
            }
            if entry.source.poll() {
                yes(entry.slot)?;
            } else {
                state.slots.borrow_mut().clear_recheck(entry.slot);
            }
        }
        ControlFlow::Continue(())
    }
}

/// The arrays. An empty one is kept for the next source of its type.
pub(crate) type Arrays = Vec<Box<dyn Array>>;

/// Returns the array of sources of this type, and its number.
pub(crate) fn of_type<S: Source>(arrays: &mut Arrays) -> (u16, &mut Typed<S>) {
    let known = arrays.iter().position(|array| array.holds() == TypeId::of::<S>());
    let index = known.unwrap_or_else(|| {
        arrays.push(Box::new(Typed::<S> {
            entries: Vec::new(),
            promoted: 0,
        }));
        arrays.len() - 1
    });
    let array = arrays[index].as_any_mut().downcast_mut();
    #[expect(clippy::expect_used, reason = "arrays know the type that they hold")]
    (
        u16::try_from(index).expect("a program has fewer types of sources"),
        array.expect("the array of this type"),
    )
}
