//! [`Registry`]: values under tokens, and the readiness that lies in their slots.
//!
//! A value leaves the registry by return value only, so that its user decides where it is dropped. The registry never
//! calls anything, except the closure given to [`Registry::resume`], which gets tokens and interests.
//!
//! Each operation that changes something checks the slot it is about, before and after, in debug builds.

use std::fmt;
use std::os::fd::RawFd;

use aio_backend::{Interest, Readiness, Token};

use crate::GroupId;
use crate::groups::Groups;
use crate::index::FdIndex;
use crate::slots::Slots;

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

impl<T> fmt::Display for Occupied<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the descriptor has a handler already: {:?}", self.token)
    }
}

impl<T: fmt::Debug> std::error::Error for Occupied<T> {}

/// Whether an event was turned away, so that the backend is silent, and who is to make it listen again.
///
/// | state | the backend has | left by |
/// |---|---|---|
/// | `No` | the interest | an event while paused (to `Listed`), or held but not paused (to `Held`) |
/// | `Held` | nothing | the last release: to `No`, or to `Listed` if the group is paused by then |
/// | `Listed` | nothing | the last resume: to `No`, or to `Held` if it is held |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parked {
    No,
    /// The last release decides.
    Held,
    /// The last resume decides; the position in the list of the group, which is paused.
    Listed(u32),
}

/// What is kept for one handler.
#[derive(Debug)]
struct Slot<T> {
    value: T,
    fd: Option<RawFd>,
    group: GroupId,
    interest: Interest,
    /// What was noted and not taken; never more than the interest asks for.
    pending: Readiness,
    parked: Parked,
    /// How many users ask that it is not called.
    holds: u32,
}

/// Values under tokens: at most one live value per descriptor number.
#[derive(Debug)]
pub struct Registry<T> {
    slots: Slots<Slot<T>>,
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
        Self::with_first_generation(0)
    }

    fn with_first_generation(generation: u32) -> Self {
        Self {
            slots: Slots::starting_at(generation),
            index: FdIndex::default(),
            groups: Groups::new(),
        }
    }

    /// Registers a value; without a descriptor number it is only found by its token.
    ///
    /// In a group that is paused it is parked by its first event, like any other.
    ///
    /// # Errors
    /// [`Occupied`], with the value, if the number has a live registration.
    ///
    /// # Panics
    /// If `group` [was not made](Self::has_group) by this registry, or with 2^32 - 1 registrations.
    pub fn insert(
        &mut self,
        fd: Option<RawFd>,
        value: T,
        interest: Interest,
        group: GroupId,
    ) -> Result<Token, Occupied<T>> {
        assert!(self.has_group(group), "{group:?} was not made by this registry");
        if let Some(token) = fd.and_then(|fd| self.token_of(fd)) {
            return Err(Occupied { value, token });
        }
        let token = self.slots.insert(Slot {
            value,
            fd,
            group,
            interest,
            pending: Readiness::empty(),
            parked: Parked::No,
            holds: 0,
        });
        if let Some(fd) = fd {
            self.index.set(fd, token.index());
        }
        self.check_slot(token);
        Ok(token)
    }

    /// Puts another value into a slot and gives the former one; `None`, and nothing is done, if the token is stale.
    ///
    /// The token, the interest, the group, holds and parking stay. Readiness that was noted for the former value is
    /// forgotten: a level-triggered backend reports it anew.
    pub fn replace(&mut self, token: Token, value: T) -> Option<T> {
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        slot.pending = Readiness::empty();
        let former = std::mem::replace(&mut slot.value, value);
        self.check_slot(token);
        Some(former)
    }

    /// Changes the interest; the former one, or `None` if the token is stale.
    ///
    /// Readiness that was noted and no longer concerns it is forgotten. The backend is to be told the
    /// [effective](Self::effective_interest) interest, which stays `NONE` while the handler is parked.
    pub fn set_interest(&mut self, token: Token, interest: Interest) -> Option<Interest> {
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        slot.pending &= interest.mask();
        let former = std::mem::replace(&mut slot.interest, interest);
        self.check_slot(token);
        Some(former)
    }

    /// Takes a value out. The token is stale from now on; readiness noted for it is gone, and so are holds and parking.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.check_slot(token);
        let slot = self.slots.remove(token)?;
        if let Some(fd) = slot.fd {
            self.index.clear(fd);
        }
        if let Parked::Listed(position) = slot.parked {
            self.unlist(slot.group, position);
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
        self.slots.get(token).map(|slot| match slot.parked {
            Parked::No => slot.interest,
            Parked::Held | Parked::Listed(_) => Interest::NONE,
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

    /// All live registrations, in the order of their slots. This walks over every slot there ever was at a time.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.slots.iter().map(|(token, _)| token)
    }

    /// Notes what a descriptor is ready for, as far as it concerns its handler.
    ///
    /// What is noted twice before it is taken adds up.
    pub fn note(&mut self, token: Token, readiness: Readiness) -> Noted {
        self.check_slot(token);
        let Some(slot) = self.slots.get_mut(token) else {
            return Noted::Stale;
        };
        let paused = self.groups.is_paused(slot.group);
        let noted = if paused || slot.holds != 0 {
            // What was noted before the pause is reported again after it, together with this.
            slot.pending = Readiness::empty();
            if slot.parked == Parked::No {
                slot.parked = if paused {
                    Parked::Listed(self.groups.park(slot.group, token))
                } else {
                    Parked::Held
                };
            }
            Noted::Parked
        } else {
            slot.pending |= readiness & slot.interest.mask();
            Noted::Live
        };
        self.check_slot(token);
        noted
    }

    /// Takes what was noted: the value, the readiness, and the present interest.
    ///
    /// `None` if there is nothing to call it for: nothing that concerns it was noted, somebody else took it, it was
    /// removed. Also if it was paused or held since; what was noted is then dropped, not kept: nobody is told of it when
    /// the pause ends, and it may have become untrue by then. Nothing is lost, as the backend is level-triggered and not
    /// yet silenced: it reports it once more, and *that* parks the handler.
    pub fn take_ready(&mut self, token: Token) -> Option<(&T, Readiness, Interest)> {
        self.check_slot(token);
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
    ///
    /// The mark is the registration's, not the value's: a value that [replaces](Self::replace) the former one is held too.
    ///
    /// # Panics
    /// If it is held 2^32 - 1 times.
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
        if slot.holds != 0 || slot.parked != Parked::Held {
            return None;
        }
        let paused = self.groups.is_paused(slot.group);
        slot.parked = if paused {
            Parked::Listed(self.groups.park(slot.group, token))
        } else {
            Parked::No
        };
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
                slot.parked = if held { Parked::Held } else { Parked::No };
            }
        }
        for token in &list {
            self.check_slot(*token);
            if let Some(slot) = self.slots.get(*token)
                && slot.parked == Parked::No
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

    /// Checks that all parts agree with each other. This looks at every slot.
    ///
    /// # Panics
    /// If they do not: a fault of this crate.
    pub fn check(&self) {
        self.slots.check();
        let (mut numbers, mut listed) = (0, 0);
        for (token, slot) in self.slots.iter() {
            self.assert_slot(token, slot);
            numbers += usize::from(slot.fd.is_some());
            listed += usize::from(matches!(slot.parked, Parked::Listed(_)));
        }
        assert_eq!(
            numbers,
            self.index.len(),
            "the index has numbers that nobody registered"
        );
        let lists: usize = self
            .groups
            .iter()
            .map(|group| self.groups.parked(group).len())
            .sum();
        assert_eq!(
            listed, lists,
            "a group lists a handler that is not parked, or one twice"
        );
    }

    /// What [`check`](Self::check) says about one slot, in debug builds: cheap enough for every operation.
    fn check_slot(&self, token: Token) {
        if cfg!(debug_assertions)
            && let Some(slot) = self.slots.get(token)
        {
            self.assert_slot(token, slot);
        }
    }

    fn assert_slot(&self, token: Token, slot: &Slot<T>) {
        if let Some(fd) = slot.fd {
            let found = self.token_of(fd);
            assert_eq!(found, Some(token), "the index leads descriptor {fd} elsewhere");
        }
        let asked = slot.interest.mask();
        assert!(
            asked.contains(slot.pending),
            "{token:?} has readiness it never asked for"
        );
        assert!(
            slot.parked == Parked::No || slot.pending.is_empty(),
            "{token:?} is silenced and yet ready"
        );
        match slot.parked {
            Parked::No => {}
            Parked::Held => assert!(slot.holds != 0, "nobody would arm {token:?} again"),
            Parked::Listed(position) => {
                assert!(
                    self.groups.is_paused(slot.group),
                    "nobody would arm {token:?} again"
                );
                let listed = self.groups.parked(slot.group).get(position as usize);
                assert_eq!(listed, Some(&token), "its group has forgotten it");
            }
        }
    }

    /// Takes a position out of a group's list and tells the one that moved there.
    fn unlist(&mut self, group: GroupId, position: u32) {
        if let Some(moved) = self.groups.unpark(group, position)
            && let Some(slot) = self.slots.get_mut(moved)
        {
            slot.parked = Parked::Listed(position);
            self.check_slot(moved);
        }
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
