//! [`Concerns`]: the work of an iteration besides descriptors, as one word.

use std::cell::Cell;
use std::rc::Rc;

use aio_backend::Flag;

/// A word with a bit for each concern. The part that a bit belongs to keeps it up to date. The lowest three
/// bits belong to the clocks: set while timers may be armed.
#[derive(Default)]
pub(crate) struct Concerns(Rc<Cell<u32>>);

/// The bit of the bottom halves: set if the last iteration left some.
pub(crate) const BOTTOM_HALVES: u32 = 1 << QUEUED;

const SIMULATED: u32 = 3;
const EDGES: u32 = 4;
const PAUSED: u32 = 5;
const POLL_MODE: u32 = 6;
const RECHECKS: u32 = 7;
const QUEUED: u32 = 8;

impl Concerns {
    /// Returns the word, for the clocks and the bottom halves.
    pub(crate) fn word(&self) -> Rc<Cell<u32>> {
        self.0.clone()
    }

    /// Returns the flag of the loop: time is simulated.
    pub(crate) fn simulated(&self) -> Flag {
        Flag::new(&self.0, SIMULATED)
    }

    /// Returns the flags of the registry: recorded edges, paused groups.
    pub(crate) fn of_registry(&self) -> [Flag; 2] {
        [EDGES, PAUSED].map(|position| Flag::new(&self.0, position))
    }

    /// Returns the flags of the poll set: poll mode, rechecks.
    pub(crate) fn of_poll_set(&self) -> [Flag; 2] {
        [POLL_MODE, RECHECKS].map(|position| Flag::new(&self.0, position))
    }

    /// Returns `true` if there is no concern.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get() == 0
    }

    /// Returns `true` if poll mode is on, no timer is armed, no edge is recorded, and no bottom half is
    /// queued.
    #[inline]
    pub(crate) fn is_polling_only(&self) -> bool {
        const OTHERS: u32 = 1 << SIMULATED | 1 << PAUSED | 1 << RECHECKS;
        self.0.get() & !OTHERS == 1 << POLL_MODE
    }
}
