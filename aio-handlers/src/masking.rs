//! Recording events: readiness stays in its slot until it is taken, or the registration is masked.
//!
//! A *masked* registration is silent in the backend, because an event arrived that must not be delivered yet. The operations that end
//! the pause or the exclusion return the interest that the backend needs again.

use aio_backend::{Interest, Readiness, Token};

use crate::mask::{Mask, PackedMask};
use crate::{GroupId, Registry};

/// The result of [`Registry::record`].
///
/// # Examples
/// ```
/// use aio_backend::{Interest, Readiness};
/// use aio_handlers::{GroupId, Recorded, Registry};
///
/// let mut registry = Registry::new();
/// let token = registry.insert(Some(7), "a socket", Interest::READ, GroupId::DEFAULT)?;
/// registry.exclude(token);
/// match registry.record(token, Readiness::IN) {
///     Recorded::Masked => { /* backend.modify(token, Interest::NONE) */ }
///     recorded => unreachable!("{recorded:?}, though the handler is excluded"),
/// }
/// assert_eq!(registry.readmit(token), Some(Interest::READ));
/// assert_eq!(registry.record(token, Readiness::IN), Recorded::Live);
/// registry.remove(token);
/// assert_eq!(registry.record(token, Readiness::IN), Recorded::Stale);
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The readiness is in the slot, and can be taken.
    Live,
    /// The handler is paused or excluded, and the event is dropped. Set [`Interest::NONE`] in the backend. The
    /// [`resume`](Registry::resume) or [`readmit`](Registry::readmit) that ends the mask returns the interest to restore. A
    /// level-triggered backend then reports the event again.
    Masked,
    /// The token has no live registration.
    Stale,
}

impl<T> Registry<T> {
    /// Records the readiness of a descriptor, as far as its interest covers it.
    ///
    /// Readiness adds up until it is taken. The backend reports an edge or a one-shot event only once, so the
    /// registry keeps it until it is taken: see [`recall`](Self::recall).
    #[inline]
    pub fn record(&mut self, token: Token, readiness: Readiness) -> Recorded {
        self.settle();
        self.record_now(token, readiness)
    }

    /// As [`record`](Self::record), without a change to the present delivery.
    #[inline]
    pub(crate) fn record_now(&mut self, token: Token, readiness: Readiness) -> Recorded {
        self.check_slot(token);
        let Some(slot) = self.slots.get_mut(token) else {
            self.stale += 1;
            return Recorded::Stale;
        };
        if self.groups.is_paused(slot.group) || slot.state.exclusions() != 0 {
            self.mask(token);
            return Recorded::Masked;
        }
        slot.add(token, readiness, &mut self.edges);
        self.check_slot(token);
        Recorded::Live
    }

    /// Masks a handler that is paused or excluded.
    #[cold]
    pub(crate) fn mask(&mut self, token: Token) {
        let Some(slot) = self.slots.get_mut(token) else {
            return;
        };
        // After the pause the backend reports the earlier readiness again, together with this event.
        slot.state.set_pending(Readiness::empty());
        if slot.mask == PackedMask::NONE {
            let mask = if self.groups.is_paused(slot.group) {
                Mask::Listed(self.groups.list(slot.group, token))
            } else {
                Mask::Excluded
            };
            slot.mask = mask.into();
        }
        self.check_slot(token);
    }

    /// Takes recorded readiness. Returns the value, the readiness, and the current interest.
    ///
    /// Returns `None` if no readiness is recorded, if a nested iteration has taken it, or if the token is
    /// stale. Also returns `None` if the handler was paused or excluded after the readiness was recorded. In
    /// that case the readiness is dropped, because it may no longer hold when the pause ends. A
    /// level-triggered backend, which is not silent yet, reports it once more, and that event masks the
    /// handler. An edge is not reported once more: see [`reject`](Self::reject).
    #[inline]
    pub fn take_ready(&mut self, token: Token) -> Option<(&T, Readiness, Interest)> {
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        let ready = slot.state.pending();
        slot.state.set_pending(Readiness::empty());
        if ready.is_empty() || slot.state.exclusions() != 0 || self.groups.is_paused(slot.group) {
            return None;
        }
        Some((&slot.value, ready, slot.state.interest()))
    }

    /// Records that the event of an interest with [`Interest::ONESHOT`] is delivered to the value: the
    /// interest is asleep until it is [set](Self::set_interest) again, even to the same value, or the value
    /// is [replaced](Self::replace). No effect for another interest.
    ///
    /// The backend is silent already: it reports one event for such an interest.
    pub fn delivered(&mut self, token: Token) {
        if let Some(slot) = self.slots.get_mut(token)
            && slot.state.interest().contains(Interest::ONESHOT)
            && slot.mask == PackedMask::NONE
        {
            slot.mask = Mask::Asleep.into();
        }
        self.check_slot(token);
    }

    /// Returns whether the registration waits for a one-shot event: with [`Interest::ONESHOT`], set after the
    /// last delivery. The backend reports all readiness anew, so the rest of an earlier event is not due.
    #[must_use]
    pub fn awaits_only_event(&self, token: Token) -> bool {
        self.slots.get(token).is_some_and(|slot| {
            slot.state.interest().contains(Interest::ONESHOT) && slot.mask.get() != Mask::Asleep
        })
    }

    /// Returns whether readiness was recorded and has not been taken.
    #[must_use]
    pub fn has_ready(&self, token: Token) -> bool {
        self.slots
            .get(token)
            .is_some_and(|slot| !slot.state.pending().is_empty())
    }

    /// Excludes a handler from being called until it is [readmitted](Self::readmit). Exclusions are counted. Returns
    /// `false` if the token is stale.
    ///
    /// The exclusion belongs to the registration: if the value is [replaced](Self::replace), the new one is
    /// excluded, too, unless [`end_exclusions`](Self::end_exclusions) is called.
    ///
    /// # Panics
    /// If the handler is excluded 2^16 - 1 times.
    pub fn exclude(&mut self, token: Token) -> bool {
        let Some(slot) = self.slots.get_mut(token) else {
            return false;
        };
        slot.state.exclude();
        true
    }

    /// Ends one [exclusion](Self::exclude). Returns the interest that the backend needs again, if this was the last exclusion, an event
    /// was masked meanwhile, and the group is not paused.
    ///
    /// Exclusions that [have ended](Self::end_exclusions) already are readmitted after all later ones,
    /// without effect, because nested calls return in that order.
    ///
    /// # Panics
    /// If the token is live and not excluded.
    pub fn readmit(&mut self, token: Token) -> Option<Interest> {
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        if slot.state.exclusions() == 0 && slot.ended != 0 {
            slot.ended -= 1;
            return None;
        }
        slot.state.readmit();
        if slot.state.exclusions() != 0 || slot.mask.get() != Mask::Excluded {
            return None;
        }
        let paused = self.groups.is_paused(slot.group);
        let mask = if paused {
            Mask::Listed(self.groups.list(slot.group, token))
        } else {
            Mask::None
        };
        slot.mask = mask.into();
        let interest = slot.state.interest();
        self.check_slot(token);
        (!paused).then_some(interest)
    }

    /// Ends all [exclusions](Self::exclude), such as those of a value that was [replaced](Self::replace)
    /// while it ran. Returns the result that the last [`readmit`](Self::readmit) would return. Each exclusion
    /// still has its `readmit`, which has no effect.
    ///
    /// # Panics
    /// If 2^16 exclusions of the registration have ended in this way and were not readmitted.
    pub fn end_exclusions(&mut self, token: Token) -> Option<Interest> {
        let slot = self.slots.get_mut(token)?;
        let exclusions = slot.state.exclusions();
        if exclusions == 0 {
            return None;
        }
        let ended = slot.ended.checked_add(exclusions);
        slot.ended = ended.expect("excluded too often");
        while slot.state.exclusions() > 1 {
            slot.state.readmit();
        }
        self.readmit(token)
    }

    /// Makes a new group. It lasts as long as the registry.
    pub fn new_group(&mut self) -> GroupId {
        self.groups.add()
    }

    /// Returns whether this registry has a group with this number.
    #[must_use]
    pub fn has_group(&self, group: GroupId) -> bool {
        self.groups.contains(group)
    }

    /// Pauses a group once more. Returns the number of its pauses.
    ///
    /// The backend needs no change: the first event of a handler masks it.
    ///
    /// # Panics
    /// If `group` was not made by this registry, or is paused 2^32 - 1 times.
    pub fn pause(&mut self, group: GroupId) -> u32 {
        self.settle();
        self.groups.pause(group)
    }

    /// Ends one pause. Returns whether it was the last one. If so, calls `rearm` for every masked registration of the group that is not
    /// excluded, with the interest that the backend needs again.
    ///
    /// All masks end before the first call. If `rearm` panics, the registry stays consistent, and `rearm` is not called for the
    /// remaining registrations.
    ///
    /// # Panics
    /// If `group` was not made by this registry or is not paused.
    pub fn resume(&mut self, group: GroupId, rearm: &mut dyn FnMut(Token, Interest)) -> bool {
        let Some(list) = self.groups.resume(group) else {
            return false;
        };
        for token in &list {
            if let Some(slot) = self.slots.get_mut(*token) {
                let excluded = slot.state.exclusions() != 0;
                slot.mask = if excluded { Mask::Excluded } else { Mask::None }.into();
            }
        }
        for token in &list {
            self.check_slot(*token);
            if let Some(slot) = self.slots.get(*token)
                && slot.mask == PackedMask::NONE
            {
                rearm(*token, slot.state.interest());
            }
        }
        self.groups.recycle(group, list);
        true
    }

    /// Returns whether any group is paused.
    #[inline]
    #[must_use]
    pub fn has_paused(&self) -> bool {
        self.groups.has_paused()
    }

    /// Returns whether a group is paused.
    #[must_use]
    pub fn is_paused(&self, group: GroupId) -> bool {
        self.groups.is_paused(group)
    }

    /// Removes a position from a group's list, and updates the registration that moved there.
    pub(crate) fn unlist(&mut self, group: GroupId, position: u32) {
        if let Some(moved) = self.groups.unlist(group, position)
            && let Some(slot) = self.slots.get_mut(moved)
        {
            slot.mask = Mask::Listed(position).into();
            self.check_slot(moved);
        }
    }
}

#[cfg(test)]
#[path = "masking_tests.rs"]
mod tests;
