//! [`Walk`]: the arrays while they are in use, and the changes to make in them afterwards.
//!
//! Code that calls a source, or changes an array, takes all arrays out of the set and brings them back, also
//! on unwinding. So the set is not borrowed while a source runs. If the source operates on the set meanwhile,
//! the arrays are absent: the operation changes flags, which take effect at once, and queues a [`Change`],
//! which is made when the arrays are back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;

use crate::Source;
use crate::arrays::{Array, Arrays, of_type};
use crate::slots::{Flags, Marked, NONE, Slot};
use crate::state::State;
use crate::steps::step;

/// A pending change of the arrays.
pub(crate) enum Change {
    /// The source of a slot is not in the place that its flags require.
    Settle(u32),
    /// A source joined.
    Place(u32, Box<dyn Joining>),
}

/// A source on its way into its array.
pub(crate) trait Joining {
    fn place(self: Box<Self>, walk: &mut Walk<'_>, slot: u32);
}

impl<S: Source> Joining for S {
    fn place(self: Box<Self>, walk: &mut Walk<'_>, slot: u32) {
        walk.place(slot, *self);
    }
}

/// The start of a round: an array, and a position in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) array: u32,
    pub(crate) at: u32,
}

/// The rest of a round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    /// The start of the round.
    pub(crate) start: Start,
    /// The position where it goes on: an array, and a position in it, or [`NONE`] at the array's end.
    pub(crate) array: u32,
    pub(crate) from: u32,
    /// Set once the round goes on with the arrays before the start, up to the start.
    pub(crate) wraps: bool,
    /// A hit that was not passed on yet.
    pub(crate) second: Option<(u32, Marked)>,
}

impl Course {
    /// Goes on with the next of `arrays` arrays.
    fn go_on(&mut self, arrays: usize) {
        self.from = 0;
        if self.is_last() {
            self.array = NONE;
            return;
        }
        self.array += 1;
        let wraps = !self.wraps && self.start != Start::default();
        if self.array as usize >= arrays && wraps {
            (self.array, self.wraps) = (0, true);
        }
    }

    /// Returns `true` if the present array is polled only up to the start.
    fn is_last(&self) -> bool {
        self.wraps && self.array == self.start.array
    }
}

/// The state of a set, and the arrays that follow its flags.
pub(crate) struct Core {
    pub(crate) state: State,
    /// The arrays; `None` while a walk has them.
    arrays: Cell<Option<Box<Arrays>>>,
    changes: RefCell<VecDeque<Change>>,
}

impl Core {
    pub(crate) fn new() -> Self {
        Self {
            state: State::default(),
            arrays: Cell::new(Some(Box::default())),
            changes: RefCell::default(),
        }
    }

    /// Moves a source that is promoted by its flags into the promoted part of its array.
    #[inline]
    pub(crate) fn promoted_again(&self, slot: u32) {
        self.state.queue_begin(slot);
        self.settle(slot);
    }

    /// Updates the arrays after a change of a slot's flags: now, or at the end of the walk in progress.
    #[inline]
    pub(crate) fn settle(&self, slot: u32) {
        match Walk::begin(self) {
            Some(mut walk) => walk.settle(slot),
            None => self.leave_change(Change::Settle(slot)),
        }
    }

    #[inline]
    fn put_back(&self, arrays: ManuallyDrop<Box<Arrays>>) {
        let none = self.arrays.replace(Some(ManuallyDrop::into_inner(arrays)));
        std::mem::forget(none);
        self.state.leave_call();
    }

    pub(crate) fn leave_change(&self, change: Change) {
        self.changes.borrow_mut().push_back(change);
        self.state.be_careful();
    }

    pub(crate) fn next_change(&self) -> Option<Change> {
        self.changes.borrow_mut().pop_front()
    }

    /// Clears `dirty` if no change and no `poll_begin` is pending.
    pub(crate) fn review_care(&self) {
        if self.state.slots.borrow().begins() + self.changes.borrow().len() == 0 {
            self.state.set_clean();
        }
    }
}

/// The arrays of a set, out of it until this is dropped.
pub(crate) struct Walk<'a> {
    core: &'a Core,
    /// `Some` until the walk is dropped, when they always go back. So no walk contains code that drops
    /// arrays.
    arrays: Option<ManuallyDrop<Box<Arrays>>>,
}

impl<'a> Walk<'a> {
    /// Begins a walk; `None` inside another walk.
    #[inline]
    pub(crate) fn begin(core: &'a Core) -> Option<Self> {
        let arrays = core.arrays.take()?;
        core.state.enter_call();
        Some(Self {
            core,
            arrays: Some(ManuallyDrop::new(arrays)),
        })
    }

    #[inline]
    pub(crate) fn arrays(&self) -> &[Box<dyn Array>] {
        self.arrays.as_deref().map_or(&[], |arrays| arrays)
    }

    fn arrays_mut(&mut self) -> &mut Arrays {
        self.arrays.get_or_insert_default()
    }

    fn slot(&self, slot: u32) -> Slot {
        *self.core.state.slots.borrow().get(slot)
    }

    /// Returns the array of a slot's source, and the position in it.
    pub(crate) fn find(&self, slot: u32) -> (&dyn Array, u32) {
        let slot = self.slot(slot);
        (&*self.arrays()[usize::from(slot.array)], slot.at)
    }

    /// Polls sources until one has work. Returns its slot.
    #[inline(never)]
    pub(crate) fn next_hit(&self, course: &mut Course) -> Option<u32> {
        loop {
            if course.from == NONE {
                course.go_on(self.arrays().len());
            }
            let array = self.arrays().get(course.array as usize)?;
            let next = if course.is_last() {
                array.next_hit_within(&self.core.state, course.from, course.start.at)
            } else {
                array.next_hit(&self.core.state, course.from)
            };
            course.from = next.from;
            if next.slot != NONE {
                return Some(next.slot);
            }
        }
    }

    /// Calls `each` with the slots of the promoted sources.
    pub(crate) fn visit(&self, mut each: impl FnMut(u32)) {
        for array in self.arrays() {
            (0..array.promoted()).for_each(|at| each(array.slot(at)));
        }
    }

    /// Puts a source into the array of its type. It replaces the slot's former one if there is one.
    pub(crate) fn place<S: Source>(&mut self, slot: u32, source: S) {
        let known = self.slot(slot);
        if known.flags().has_any(Flags::GONE) {
            return;
        }
        let (number, array) = of_type::<S>(self.arrays_mut());
        if known.at != NONE && known.array == number {
            let former = array.replace(known.at, source);
            self.placed(slot, number, known.at);
            drop(former);
            return;
        }
        let at = array.push(slot, source);
        let former = (known.at != NONE).then(|| self.detach(slot));
        self.placed(slot, number, at);
        if let Some(former) = former {
            self.arrays_mut()[former].pop();
        }
    }

    fn placed(&mut self, slot: u32, array: u16, at: u32) {
        let mut slots = self.core.state.slots.borrow_mut();
        let entry = slots.get_mut(slot);
        (entry.array, entry.at) = (array, at);
        slots.edit(slot, |flags| flags.without(Flags::ABSENT));
        drop(slots);
        self.settle(slot);
    }

    /// Moves a slot's source to the place that its flags require: among the promoted ones, among the others,
    /// or out of its array.
    pub(crate) fn settle(&mut self, slot: u32) {
        step();
        let known = self.slot(slot);
        if known.flags().has_any(Flags::FREE) {
            return;
        }
        let is_gone = known.flags().has_any(Flags::GONE);
        if known.at == NONE {
            if is_gone {
                self.core.state.slots.borrow_mut().release(slot);
            }
            return;
        }
        if is_gone {
            let array = self.detach(slot);
            self.core.state.slots.borrow_mut().release(slot);
            // The drop may run any code, and may panic.
            self.arrays_mut()[array].pop();
        } else {
            self.promote(slot, known.flags().is_promoted());
        }
    }

    /// Makes a slot's source the last one of its array. Returns the number of the array.
    fn detach(&mut self, slot: u32) -> usize {
        self.promote(slot, false);
        let known = self.slot(slot);
        let array = usize::from(known.array);
        let last = self.arrays()[array].len() - 1;
        self.swap(array, known.at as usize, last);
        self.core.state.slots.borrow_mut().get_mut(slot).at = NONE;
        array
    }

    /// Moves a slot's source into the promoted part of its array, or out of it.
    fn promote(&mut self, slot: u32, promoted: bool) {
        let known = self.slot(slot);
        let (index, at) = (usize::from(known.array), known.at as usize);
        let array = &mut self.arrays_mut()[index];
        let border = array.promoted();
        if (at < border) == promoted {
            return;
        }
        let (place, border) = if promoted {
            (border, border + 1)
        } else {
            (border - 1, border - 1)
        };
        array.set_promoted(border);
        self.swap(index, at, place);
    }

    fn swap(&mut self, array: usize, one: usize, other: usize) {
        let core = self.core;
        let array = &mut self.arrays_mut()[array];
        array.swap(one, other);
        let mut slots = core.state.slots.borrow_mut();
        for at in [one, other] {
            slots.get_mut(array.slot(at)).at = at as u32;
        }
    }

    /// Makes the queued changes, with those that are queued meanwhile.
    fn make_changes(&mut self) {
        loop {
            let Some(change) = self.core.next_change() else {
                break;
            };
            match change {
                Change::Settle(slot) => self.settle(slot),
                Change::Place(slot, source) => source.place(self, slot),
            }
        }
        self.core.review_care();
    }

    /// Makes pending changes; the arrays go back also if a source panics when it is dropped.
    #[cold]
    #[inline(never)]
    fn change_and_put_back(core: &Core, arrays: ManuallyDrop<Box<Arrays>>) {
        struct Back<'a>(ManuallyDrop<Walk<'a>>);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                if let Some(arrays) = self.0.arrays.take() {
                    self.0.core.put_back(arrays);
                }
            }
        }
        let arrays = Some(arrays);
        Back(ManuallyDrop::new(Walk { core, arrays })).0.make_changes();
    }
}

impl Drop for Walk<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let Some(arrays) = self.arrays.take() else { return };
        if self.core.state.is_dirty() {
            Self::change_and_put_back(self.core, arrays);
        } else {
            self.core.put_back(arrays);
        }
    }
}
