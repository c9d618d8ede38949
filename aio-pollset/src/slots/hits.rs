//! Hits: they are marked, and their sources are excluded while they are served.

use aio_backend::Token;

use super::{Flags, Slot, Slots};

/// What [`Slots::mark_hit`] has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marked {
    pub(crate) token: Token,
    /// What was there before.
    last_event: u32,
    flags: Flags,
}

impl Slots {
    /// A source's `poll` returned `true` in this round: marks the hit and returns the token and the former flags, or `None` if the source
    /// was removed, suspended or replaced meanwhile.
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

    /// What [`mark_hit`](Self::mark_hit) would change where a source has a hit: nothing.
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

    /// Takes back a mark, because the hit was refused.
    pub(crate) fn unmark_hit(&mut self, slot: u32, marked: &Marked) {
        let entry = self.get_mut(slot);
        if entry.token == marked.token && !marked.flags.has_any(Flags::HIT) {
            entry.flags = entry.flags.without(Flags::HIT);
            entry.last_event = marked.last_event;
        }
    }

    /// Takes the hit of the source in a slot that has this token, if there is one that can be served, and excludes the source. The
    /// source need not be rechecked then. Returns whether it is excluded: it may nest.
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
            // One that is suspended is polled after the suspension.
            self.get_mut(slot).flags = flags.without(Flags::HIT);
        }
        (!is_suspended).then(|| self.exclude(slot))
    }

    /// Excludes a source once more; `false` if it nests.
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

    /// As [`include`](Self::include), usually after [`begin_serving`](Self::begin_serving).
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

    /// Takes back one exclusion. The source may have left, and its slot may be reused.
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
