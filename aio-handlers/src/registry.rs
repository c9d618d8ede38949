//! [`Registry`]: values under tokens, and the readiness that lies in their slots.
//!
//! A value leaves the registry by return value only, so that its user decides where it is dropped. The registry never
//! calls anything, except the closure given to [`Registry::resume`], which gets tokens and interests.

use std::os::fd::RawFd;

use aio_backend::{Interest, Readiness, Token};

use crate::GroupId;
use crate::groups::Groups;
use crate::slots::{FdIndex, Slot, Slots};

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

/// The descriptor number has a live registration already; the value comes back.
#[derive(Debug)]
pub struct Occupied<T> {
    /// The value that was not registered.
    pub value: T,
    /// The registration that is in the way.
    pub token: Token,
}

/// Values under tokens: at most one live value per descriptor number.
#[derive(Debug)]
pub struct Registry<T> {
    slots: Slots<T>,
    index: FdIndex,
    groups: Groups,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Registry<T> {
    /// An empty registry with the one group [`GroupId::DEFAULT`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            slots: Slots::starting_at(0),
            index: FdIndex::default(),
            groups: Groups::new(),
        }
    }

    /// Registers a value; without a descriptor number it is only found by its token.
    ///
    /// # Errors
    /// [`Occupied`], with the value, if the number has a live registration.
    ///
    /// # Panics
    /// If `group` was not made by this registry.
    pub fn insert(
        &mut self,
        fd: Option<RawFd>,
        value: T,
        interest: Interest,
        group: GroupId,
    ) -> Result<Token, Occupied<T>> {
        assert!(
            self.groups.contains(group),
            "{group:?} was not made by this registry"
        );
        if let Some(token) = fd.and_then(|fd| self.token_of(fd)) {
            return Err(Occupied { value, token });
        }
        let pending = Readiness::empty();
        let token = self.slots.insert(Slot {
            value,
            fd,
            group,
            interest,
            pending,
            parked: false,
            holds: 0,
        });
        if let Some(fd) = fd {
            self.index.set(fd, token.index());
        }
        Ok(token)
    }

    /// Puts another value into a slot: the token stays, readiness that was noted for the former value is forgotten (a
    /// level-triggered backend reports it anew). The former value, or `None` and nothing done if the token is stale.
    pub fn replace(&mut self, token: Token, value: T) -> Option<T> {
        let slot = self.slots.get_mut(token)?;
        slot.pending = Readiness::empty();
        Some(std::mem::replace(&mut slot.value, value))
    }

    /// Changes the interest; the former one, or `None` if the token is stale. Readiness that was noted and no longer
    /// concerns it is forgotten. Tell the backend the [effective](Self::effective_interest) interest.
    pub fn set_interest(&mut self, token: Token, interest: Interest) -> Option<Interest> {
        let slot = self.slots.get_mut(token)?;
        slot.pending &= interest.mask();
        Some(std::mem::replace(&mut slot.interest, interest))
    }

    /// Takes a value out. The token is stale from now on; readiness noted for it is gone.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slots.remove(token)?;
        if let Some(fd) = slot.fd {
            self.index.clear(fd);
        }
        Some(slot.value)
    }

    /// The live registration of a descriptor number.
    #[must_use]
    pub fn token_of(&self, fd: RawFd) -> Option<Token> {
        self.slots.at(self.index.get(fd)?)
    }

    /// A value.
    #[must_use]
    pub fn get(&self, token: Token) -> Option<&T> {
        self.slots.get(token).map(|slot| &slot.value)
    }

    /// A value, to be changed.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        self.slots.get_mut(token).map(|slot| &mut slot.value)
    }

    /// What the handler asked for.
    #[must_use]
    pub fn interest(&self, token: Token) -> Option<Interest> {
        self.slots.get(token).map(|slot| slot.interest)
    }

    /// What the backend should be waiting for now: nothing while the handler is parked.
    #[must_use]
    pub fn effective_interest(&self, token: Token) -> Option<Interest> {
        self.slots.get(token).map(|slot| {
            if slot.parked {
                Interest::NONE
            } else {
                slot.interest
            }
        })
    }

    /// The group it belongs to.
    #[must_use]
    pub fn group(&self, token: Token) -> Option<GroupId> {
        self.slots.get(token).map(|slot| slot.group)
    }

    /// How many live registrations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All live registrations, in the order of their slots.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.slots.iter().map(|(token, _)| token)
    }

    /// Notes what a descriptor is ready for, as far as it concerns its handler.
    pub fn note(&mut self, token: Token, readiness: Readiness) -> Noted {
        let Some(slot) = self.slots.get_mut(token) else {
            return Noted::Stale;
        };
        let paused = self.groups.is_paused(slot.group);
        if !paused && slot.holds == 0 {
            slot.pending |= readiness & slot.interest.mask();
            return Noted::Live;
        }
        if !slot.parked {
            slot.parked = true;
            if paused {
                self.groups.park(slot.group, token);
            }
        }
        Noted::Parked
    }

    /// Takes what was noted: the value, the readiness, and the present interest. `None` if there is nothing: never noted,
    /// taken by somebody else, removed; or paused or held since, then a level-triggered backend reports it anew.
    pub fn take_ready(&mut self, token: Token) -> Option<(&T, Readiness, Interest)> {
        let slot = self.slots.get_mut(token)?;
        let ready = std::mem::take(&mut slot.pending);
        if ready.is_empty() || slot.holds != 0 || self.groups.is_paused(slot.group) {
            return None;
        }
        Some((&slot.value, ready, slot.interest))
    }

    /// Forgets what was noted, for whoever cannot call the handler after all; a level-triggered backend reports it anew.
    pub fn forget_ready(&mut self, token: Token) {
        if let Some(slot) = self.slots.get_mut(token) {
            slot.pending = Readiness::empty();
        }
    }

    /// Asks that a handler is not called until it is [released](Self::release); counted. False if the token is stale.
    pub fn hold(&mut self, token: Token) -> bool {
        let Some(slot) = self.slots.get_mut(token) else {
            return false;
        };
        slot.holds += 1;
        true
    }

    /// Takes back one [`hold`](Self::hold). If it was the last and events were turned away meanwhile, the interest that
    /// the backend is to be told again.
    pub fn release(&mut self, token: Token) -> Option<Interest> {
        let slot = self.slots.get_mut(token)?;
        slot.holds = slot.holds.saturating_sub(1);
        if slot.holds != 0 || !slot.parked {
            return None;
        }
        if self.groups.is_paused(slot.group) {
            // Whoever ends the pause tells the backend.
            self.groups.park(slot.group, token);
            return None;
        }
        slot.parked = false;
        Some(slot.interest)
    }

    /// A new group.
    pub fn new_group(&mut self) -> GroupId {
        self.groups.add()
    }

    /// Pauses a group once more; how often it is paused now.
    ///
    /// # Panics
    /// If `group` was not made by this registry.
    pub fn pause(&mut self, group: GroupId) -> u32 {
        self.groups.pause(group)
    }

    /// Takes back one pause. If it was the last (then true), calls `rearm` with every registration that turned events
    /// away and the interest that the backend is to be told again.
    ///
    /// # Panics
    /// If `group` was not made by this registry or is not paused.
    pub fn resume(&mut self, group: GroupId, rearm: &mut dyn FnMut(Token, Interest)) -> bool {
        let Some(parked) = self.groups.resume(group) else {
            return false;
        };
        for token in parked {
            let Some(slot) = self.slots.get_mut(token) else {
                continue;
            };
            if slot.holds == 0 && std::mem::take(&mut slot.parked) {
                rearm(token, slot.interest);
            }
        }
        true
    }

    /// Whether a group is paused.
    #[must_use]
    pub fn is_paused(&self, group: GroupId) -> bool {
        self.groups.is_paused(group)
    }

    /// Checks that the parts agree with each other.
    ///
    /// # Panics
    /// If they do not: a fault of this crate.
    pub fn check(&self) {
        let mut live = 0;
        for (token, slot) in self.slots.iter() {
            live += 1;
            if let Some(fd) = slot.fd {
                assert_eq!(
                    self.token_of(fd),
                    Some(token),
                    "the index leads descriptor {fd} elsewhere"
                );
            }
            assert!(
                slot.interest.mask().contains(slot.pending),
                "{token:?} has readiness it never asked for"
            );
            if slot.parked {
                assert!(
                    slot.holds != 0 || self.groups.is_paused(slot.group),
                    "{token:?} is parked for no reason"
                );
            }
        }
        assert_eq!(live, self.len());
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
