//! Events of a [`Registry`]: readiness that lies in its slot until somebody takes it, and handlers that are parked.
//!
//! Nothing here is called but the closure given to [`Registry::resume`], which gets tokens and interests: what is
//! parked is to be silenced in the backend, and what is armed again to be heard there, by the caller.

use aio_backend::{Interest, Readiness, Token};

use crate::{GroupId, Registry};

/// What became of an event that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It lies in the slot, to be taken.
    Live,
    /// The handler is paused or held. The event was not kept: tell the backend to be silent about this token; the
    /// resume or release that ends it says when to listen again, and a level-triggered backend then reports anew.
    Parked,
    /// There is no such registration any more.
    Stale,
}

/// Whether an event was turned away, so that the backend is silent, and who is to make it listen again.
///
/// | state | the backend has | left by |
/// |---|---|---|
/// | `No` | the interest | an event while paused (to `Listed`), or held but not paused (to `Held`) |
/// | `Held` | nothing | the last release: to `No`, or to `Listed` if the group is paused by then |
/// | `Listed` | nothing | the last resume: to `No`, or to `Held` if it is held |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    No,
    /// The last release decides.
    Held,
    /// The last resume decides; the position in the list of the group, which is paused.
    Listed(u32),
}

/// [`Parked`] in half its size: there can be many slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedParked(u32);

impl PackedParked {
    pub(crate) const NO: Self = Self(u32::MAX);
    const HELD: Self = Self(u32::MAX - 1);

    #[inline]
    pub(crate) fn get(self) -> Parked {
        match self {
            Self::NO => Parked::No,
            Self::HELD => Parked::Held,
            Self(position) => Parked::Listed(position),
        }
    }
}

impl From<Parked> for PackedParked {
    fn from(parked: Parked) -> Self {
        match parked {
            Parked::No => Self::NO,
            Parked::Held => Self::HELD,
            // A group has fewer members than there are slots, which are fewer than 2^32 - 2.
            Parked::Listed(position) => Self(position),
        }
    }
}

impl<T> Registry<T> {
    /// Notes what a descriptor is ready for, as far as it concerns its handler.
    ///
    /// What is noted twice before it is taken adds up.
    #[inline]
    pub fn note(&mut self, token: Token, readiness: Readiness) -> Noted {
        self.check_slot(token);
        let Some(slot) = self.slots.get_mut(token) else {
            return Noted::Stale;
        };
        if self.groups.is_paused(slot.group) || slot.holds != 0 {
            self.turn_away(token);
            return Noted::Parked;
        }
        slot.pending |= readiness & slot.interest.mask();
        self.check_slot(token);
        Noted::Live
    }

    /// Parks a handler that is paused or held.
    #[cold]
    fn turn_away(&mut self, token: Token) {
        let Some(slot) = self.slots.get_mut(token) else {
            return;
        };
        // What was noted before the pause is reported again after it, together with this.
        slot.pending = Readiness::empty();
        if slot.parked == PackedParked::NO {
            let parked = if self.groups.is_paused(slot.group) {
                Parked::Listed(self.groups.park(slot.group, token))
            } else {
                Parked::Held
            };
            slot.parked = parked.into();
        }
        self.check_slot(token);
    }

    /// Takes what was noted: the value, the readiness, and the present interest.
    ///
    /// `None` if there is nothing to call it for: nothing that concerns it was noted, somebody else took it, it was
    /// removed. Also if it was paused or held since; what was noted is then dropped, not kept: nobody is told of it when
    /// the pause ends, and it may have become untrue by then. Nothing is lost, as the backend is level-triggered and not
    /// yet silenced: it reports it once more, and *that* parks the handler.
    #[inline]
    pub fn take_ready(&mut self, token: Token) -> Option<(&T, Readiness, Interest)> {
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        let ready = std::mem::take(&mut slot.pending);
        if ready.is_empty() || slot.holds != 0 || self.groups.is_paused(slot.group) {
            return None;
        }
        Some((&slot.value, ready, slot.interest))
    }

    /// Whether something was noted for it and has not been taken.
    #[must_use]
    pub fn has_ready(&self, token: Token) -> bool {
        self.slots.get(token).is_some_and(|slot| !slot.pending.is_empty())
    }

    /// Forgets what was noted, for whoever cannot call the handler after all; a level-triggered backend reports it anew.
    pub fn forget_ready(&mut self, token: Token) {
        if let Some(slot) = self.slots.get_mut(token) {
            slot.pending = Readiness::empty();
        }
    }

    /// Asks that a handler is not called until it is [released](Self::release); counted. False if the token is stale.
    ///
    /// The mark is the registration's, not the value's: a value that [replaces](Self::replace) the former one is held too.
    ///
    /// # Panics
    /// If it is held 2^16 - 1 times.
    pub fn hold(&mut self, token: Token) -> bool {
        let Some(slot) = self.slots.get_mut(token) else {
            return false;
        };
        slot.holds = slot.holds.checked_add(1).expect("held too often");
        true
    }

    /// Takes back one [`hold`](Self::hold). If it was the last, events were turned away meanwhile, and the group is not
    /// paused: the interest that the backend is to be told again.
    ///
    /// # Panics
    /// If the token is live and not held.
    pub fn release(&mut self, token: Token) -> Option<Interest> {
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        assert!(slot.holds > 0, "released more often than held");
        slot.holds -= 1;
        if slot.holds != 0 || slot.parked.get() != Parked::Held {
            return None;
        }
        let paused = self.groups.is_paused(slot.group);
        let parked = if paused {
            Parked::Listed(self.groups.park(slot.group, token))
        } else {
            Parked::No
        };
        slot.parked = parked.into();
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

    /// Pauses a group once more; how often it is paused now.
    ///
    /// The backend need not be told: a handler of the group is parked by its first event.
    ///
    /// # Panics
    /// If `group` was not made by this registry, or is paused 2^32 - 1 times.
    pub fn pause(&mut self, group: GroupId) -> u32 {
        self.groups.pause(group)
    }

    /// Takes back one pause. If it was the last (then true), calls `rearm` with every registration that turned events
    /// away, is not held, and the interest that the backend is to be told again.
    ///
    /// For the registry all of them are armed before the first call: a `rearm` that panics leaves it consistent, but those
    /// that come after are not named again.
    ///
    /// # Panics
    /// If `group` was not made by this registry or is not paused.
    pub fn resume(&mut self, group: GroupId, rearm: &mut dyn FnMut(Token, Interest)) -> bool {
        let Some(list) = self.groups.resume(group) else {
            return false;
        };
        for token in &list {
            if let Some(slot) = self.slots.get_mut(*token) {
                let held = slot.holds != 0;
                slot.parked = if held { Parked::Held } else { Parked::No }.into();
            }
        }
        for token in &list {
            self.check_slot(*token);
            if let Some(slot) = self.slots.get(*token)
                && slot.parked == PackedParked::NO
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

    /// Takes a position out of a group's list and tells the one that moved there.
    pub(crate) fn unlist(&mut self, group: GroupId, position: u32) {
        if let Some(moved) = self.groups.unpark(group, position)
            && let Some(slot) = self.slots.get_mut(moved)
        {
            slot.parked = Parked::Listed(position).into();
            self.check_slot(moved);
        }
    }
}

#[cfg(test)]
#[path = "parking_tests.rs"]
mod tests;
