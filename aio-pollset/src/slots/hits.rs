//! Hits: marking them, and excluding their sources while they are served.

use aio_backend::Token;

use super::{Flags, Slot, Slots};

/// The state of a slot before [`Slots::mark_hit`] changed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marked {
    pub(crate) token: Token,
    /// The former values.
    last_event: u32,
    flags: Flags,
}

impl Slots {
    /// Marks the hit of a source whose `poll` returned `true` in this round. Returns the token and the former
    /// state, or `None` if the source was removed, suspended or replaced meanwhile.
    #[inline]
    pub(crate) fn mark_hit(&mut self, slot: u32, round: u32) -> Option<Marked> {
        let entry = self.get_mut(slot);
        let marked = Marked {
            token: entry.token,
            last_event: entry.last_event,
            flags: entry.flags,
        };
        if entry.flags.has_any(Flags::OUT) {
            return None;
        }
        entry.flags |= Flags::HIT;
        entry.last_event = round;
        Some(marked)
    }

    /// Returns the mark of a source that has a hit already. Unmarking it changes nothing.
    pub(crate) fn marked(&self, slot: u32) -> Option<Marked> {
        let Slot {
            token,
            last_event,
            flags,
            ..
        } = *self.get(slot);
        flags.has_any(Flags::HIT).then_some(Marked {
            token,
            last_event,
            flags,
        })
    }

    /// Removes the mark of a hit that was refused.
    pub(crate) fn unmark_hit(&mut self, slot: u32, marked: &Marked) {
        let entry = self.get_mut(slot);
        if entry.token == marked.token && !marked.flags.has_any(Flags::HIT) {
            entry.flags = entry.flags.without(Flags::HIT);
            entry.last_event = marked.last_event;
        }
    }

    /// Takes the hit of the source in a slot that has this token, if there is one that can be served, clears
    /// its recheck, and excludes the source. Returns `Some(true)` if it is excluded, `Some(false)` if it
    /// nests.
    #[inline(always)]
    pub(crate) fn begin_serving(&mut self, slot: u32, token: Token) -> Option<bool> {
        let entry = self.get_mut(slot);
        if entry.token != token {
            return None;
        }
        if entry.flags & Flags::SERVED != Flags::HIT {
            return self.begin_serving_unusual(slot);
        }
        entry.flags = entry.flags.without(Flags::HIT) | Flags::EXCLUDED;
        entry.excluded = 1;
        Some(true)
    }

    #[inline(never)]
    fn begin_serving_unusual(&mut self, slot: u32) -> Option<bool> {
        let flags = self.get(slot).flags;
        if !flags.has_any(Flags::HIT) {
            return None;
        }
        let is_suspended = flags.has_any(Flags::SUSPENDED);
        if flags.has_any(Flags::RECHECK) && !is_suspended {
            self.edit(slot, |flags| flags.without(Flags::HIT | Flags::RECHECK));
        } else {
            // A suspended source is polled after the suspension.
            self.get_mut(slot).flags = flags.without(Flags::HIT);
        }
        (!is_suspended).then(|| self.exclude(slot))
    }

    /// Excludes a source once more. Returns `false` if it nests.
    #[inline]
    pub(crate) fn exclude(&mut self, slot: u32) -> bool {
        let entry = self.get_mut(slot);
        let flags = entry.flags;
        if flags.has_any(Flags::NESTS) {
            return false;
        }
        entry.excluded += 1;
        if flags.has_any(Flags::RECHECK) {
            self.edit(slot, |flags| flags | Flags::EXCLUDED);
        } else {
            entry.flags |= Flags::EXCLUDED;
        }
        true
    }

    /// As [`include`](Self::include), with a fast path for the usual case after
    /// [`begin_serving`](Self::begin_serving).
    #[inline(always)]
    pub(crate) fn end_serving(&mut self, slot: u32, token: Token) {
        let entry = self.get_mut(slot);
        if entry.token == token && entry.excluded == 1 && !entry.flags.has_any(Flags::RECHECK) {
            entry.excluded = 0;
            entry.flags = entry.flags.without(Flags::EXCLUDED);
        } else {
            self.include(slot, token);
        }
    }

    /// Ends one exclusion. The source may have left, and its slot may be reused.
    #[inline(never)]
    pub(crate) fn include(&mut self, slot: u32, token: Token) {
        let entry = self.get_mut(slot);
        if entry.token != token || entry.excluded == 0 {
            return;
        }
        entry.excluded -= 1;
        if entry.excluded == 0 {
            let flags = entry.flags;
            if flags.has_any(Flags::RECHECK) {
                self.edit(slot, |flags| flags.without(Flags::EXCLUDED));
            } else {
                entry.flags = flags.without(Flags::EXCLUDED);
            }
        }
    }
}
