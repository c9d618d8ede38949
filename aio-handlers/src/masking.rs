//! What becomes of an event: readiness stays in its slot until it is taken, or the registration is masked.
//!
//! A *masked* registration is silent in the backend, because an event came that may not be delivered yet. The operations
//! that end the pause or the exclusion return the interest that the backend needs again.

use aio_backend::{Interest, Readiness, Token};

use crate::{GroupId, Registry};

/// What became of an event that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It lies in the slot, to be taken.
    Live,
    /// The handler is paused or excluded. The event was not kept. Silence the token in the backend: the
    /// [`resume`](Registry::resume) or [`readmit`](Registry::readmit) that ends the mask returns the interest to restore,
    /// and a level-triggered backend then reports the event anew.
    Masked,
    /// There is no such registration.
    Stale,
}

/// Whether the backend is silent about a registration, and which operation ends that.
///
/// | state | interest in the backend | next state |
/// |---|---|---|
/// | `None` | as registered | an event while paused: `Listed`; an event while excluded and not paused: `Excluded` |
/// | `Excluded` | none | the last `readmit`: `None`, or `Listed` if the group is paused by then |
/// | `Listed` | none | the last `resume`: `None`, or `Excluded` if the handler is excluded |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    None,
    /// The last readmission ends it.
    Excluded,
    /// The last resume ends it. The number is the position in the list of the group, which is paused.
    Listed(u32),
}

/// [`Mask`] in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedMask(u32);

impl PackedMask {
    pub(crate) const NONE: Self = Self(u32::MAX);
    const EXCLUDED: Self = Self(u32::MAX - 1);

    #[inline]
    pub(crate) fn get(self) -> Mask {
        match self {
            Self::NONE => Mask::None,
            Self::EXCLUDED => Mask::Excluded,
            Self(position) => Mask::Listed(position),
        }
    }
}

impl From<Mask> for PackedMask {
    fn from(mask: Mask) -> Self {
        match mask {
            Mask::None => Self::NONE,
            Mask::Excluded => Self::EXCLUDED,
            // A group has fewer members than there are slots, which are fewer than 2^32 - 2.
            Mask::Listed(position) => Self(position),
        }
    }
}

impl<T> Registry<T> {
    /// Records what a descriptor is ready for, as far as its interest covers it.
    ///
    /// Readiness that is recorded twice before it is taken adds up. An edge, which the backend reports only once, is
    /// remembered until it is taken: see [`recall`](Self::recall).
    #[inline]
    pub fn record(&mut self, token: Token, readiness: Readiness) -> Recorded {
        self.check_slot(token);
        let Some(slot) = self.slots.get_mut(token) else {
            return Recorded::Stale;
        };
        if self.groups.is_paused(slot.group) || slot.exclusions != 0 {
            self.mask(token);
            return Recorded::Masked;
        }
        if slot.interest.contains(Interest::EDGE) && slot.pending.is_empty() {
            self.edges.push(token);
        }
        slot.pending |= readiness & slot.interest.mask();
        self.check_slot(token);
        Recorded::Live
    }

    /// Masks a handler that is paused or excluded.
    #[cold]
    pub(crate) fn mask(&mut self, token: Token) {
        let Some(slot) = self.slots.get_mut(token) else {
            return;
        };
        // Readiness that was recorded before the pause is reported again after it, together with this event.
        slot.pending = Readiness::empty();
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

    /// Takes recorded readiness: returns the value, the readiness, and the present interest.
    ///
    /// Returns `None` if there is nothing to call the handler for: no readiness that concerns it was recorded, a nested
    /// iteration took it, or the handler was removed. Also if the handler was paused or excluded since. Its readiness is
    /// then dropped, because it may be untrue when the pause ends; a level-triggered backend, which is not silent yet,
    /// reports it once more, and that event masks the handler. An edge is not reported once more: see
    /// [`reject`](Self::reject).
    #[inline]
    pub fn take_ready(&mut self, token: Token) -> Option<(&T, Readiness, Interest)> {
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        let ready = std::mem::take(&mut slot.pending);
        if ready.is_empty() || slot.exclusions != 0 || self.groups.is_paused(slot.group) {
            return None;
        }
        Some((&slot.value, ready, slot.interest))
    }

    /// Whether readiness was recorded and has not been taken.
    #[must_use]
    pub fn has_ready(&self, token: Token) -> bool {
        self.slots.get(token).is_some_and(|slot| !slot.pending.is_empty())
    }

    /// Excludes a handler from being called until it is [readmitted](Self::readmit). Exclusions are counted. Returns
    /// `false` if the token is stale.
    ///
    /// The exclusion belongs to the registration: a value that [replaces](Self::replace) the former one is excluded too.
    ///
    /// # Panics
    /// If the handler is excluded 2^16 - 1 times.
    pub fn exclude(&mut self, token: Token) -> bool {
        let Some(slot) = self.slots.get_mut(token) else {
            return false;
        };
        slot.exclusions = slot.exclusions.checked_add(1).expect("excluded too often");
        true
    }

    /// Takes back one [exclusion](Self::exclude). Returns the interest that the backend needs again, if this was the last
    /// exclusion, an event came meanwhile, and the group is not paused.
    ///
    /// # Panics
    /// If the token is live and not excluded.
    pub fn readmit(&mut self, token: Token) -> Option<Interest> {
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        assert!(slot.exclusions > 0, "readmitted more often than excluded");
        slot.exclusions -= 1;
        if slot.exclusions != 0 || slot.mask.get() != Mask::Excluded {
            return None;
        }
        let paused = self.groups.is_paused(slot.group);
        let mask = if paused {
            Mask::Listed(self.groups.list(slot.group, token))
        } else {
            Mask::None
        };
        slot.mask = mask.into();
        let interest = slot.interest;
        self.check_slot(token);
        (!paused).then_some(interest)
    }

    /// A new group. It lasts as long as the registry.
    pub fn new_group(&mut self) -> GroupId {
        self.groups.add()
    }

    /// Whether a group was made by this registry, as far as its number tells.
    #[must_use]
    pub fn has_group(&self, group: GroupId) -> bool {
        self.groups.contains(group)
    }

    /// Pauses a group once more, and returns how often it is paused now.
    ///
    /// The backend needs no change: the first event of a handler masks it.
    ///
    /// # Panics
    /// If `group` was not made by this registry, or is paused 2^32 - 1 times.
    pub fn pause(&mut self, group: GroupId) -> u32 {
        self.groups.pause(group)
    }

    /// Takes back one pause; returns whether it was the last. If so, calls `rearm` for every masked registration of the
    /// group that is not excluded, with the interest that the backend needs again.
    ///
    /// All masks end before the first call. A `rearm` that panics leaves the registry consistent; it is not called for
    /// the registrations that come after.
    ///
    /// # Panics
    /// If `group` was not made by this registry or is not paused.
    pub fn resume(&mut self, group: GroupId, rearm: &mut dyn FnMut(Token, Interest)) -> bool {
        let Some(list) = self.groups.resume(group) else {
            return false;
        };
        for token in &list {
            if let Some(slot) = self.slots.get_mut(*token) {
                let excluded = slot.exclusions != 0;
                slot.mask = if excluded { Mask::Excluded } else { Mask::None }.into();
            }
        }
        for token in &list {
            self.check_slot(*token);
            if let Some(slot) = self.slots.get(*token)
                && slot.mask == PackedMask::NONE
            {
                rearm(*token, slot.interest);
            }
        }
        self.groups.recycle(group, list);
        true
    }

    /// Whether a group is paused.
    #[must_use]
    pub fn is_paused(&self, group: GroupId) -> bool {
        self.groups.is_paused(group)
    }

    /// Takes a position out of a group's list, and updates the registration that moved there.
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
