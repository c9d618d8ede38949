//! [`Registry`]: values under tokens, found by descriptor number.
//!
//! A value leaves the registry by return value only, so that its user decides where it is dropped; nothing here calls
//! one. What becomes of events is in `masking.rs`.
//!
//! Each operation that changes something checks the slot it is about, before and after, in debug builds.

use std::fmt;
use std::os::fd::RawFd;

use aio_backend::{Interest, Readiness, Token};

use crate::GroupId;
use crate::groups::Groups;
use crate::index::FdIndex;
use crate::masking::{Mask, PackedMask};
use crate::slots::Slots;

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

/// What is kept for one handler.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    pub(crate) value: T,
    /// The descriptor number, or [`NO_FD`].
    fd: RawFd,
    pub(crate) group: GroupId,
    pub(crate) mask: PackedMask,
    /// How many users ask that it is not called.
    pub(crate) exclusions: u16,
    pub(crate) interest: Interest,
    /// What was recorded and not taken; never more than the interest asks for.
    pub(crate) pending: Readiness,
}

const NO_FD: RawFd = -1;

impl<T> Slot<T> {
    fn fd(&self) -> Option<RawFd> {
        (self.fd != NO_FD).then_some(self.fd)
    }
}

/// Values under tokens: at most one live value per descriptor number.
#[derive(Debug)]
pub struct Registry<T> {
    pub(crate) slots: Slots<Slot<T>>,
    pub(crate) index: FdIndex,
    pub(crate) groups: Groups,
    /// Registrations whose edges were recorded and perhaps not taken.
    pub(crate) edges: Vec<Token>,
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

    pub(crate) fn with_first_generation(generation: u32) -> Self {
        Self {
            slots: Slots::starting_at(generation),
            index: FdIndex::default(),
            groups: Groups::new(),
            edges: Vec::new(),
        }
    }

    /// Registers a value; without a descriptor number (or with -1, which is none) it is only found by its token.
    ///
    /// In a group that is paused it is masked by its first event, like any other.
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
        let fd = fd.filter(|fd| *fd != NO_FD);
        if let Some(token) = fd.and_then(|fd| self.token_of(fd)) {
            return Err(Occupied { value, token });
        }
        let token = self.slots.insert(Slot {
            value,
            fd: fd.unwrap_or(NO_FD),
            group,
            mask: PackedMask::NONE,
            exclusions: 0,
            interest,
            pending: Readiness::empty(),
        });
        if let Some(fd) = fd {
            self.index.set(fd, token.index());
        }
        self.check_slot(token);
        Ok(token)
    }

    /// Puts another value into a slot and gives the former one; `None`, and nothing is done, if the token is stale.
    ///
    /// The token, the interest, the group, exclusions and masking stay. Readiness that was recorded for the former value is
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
    /// Readiness that was recorded and no longer concerns it is forgotten. The backend is to be told the
    /// [effective](Self::effective_interest) interest, which stays `NONE` while the handler is masked.
    pub fn set_interest(&mut self, token: Token, interest: Interest) -> Option<Interest> {
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        slot.pending &= interest.mask();
        let former = std::mem::replace(&mut slot.interest, interest);
        self.check_slot(token);
        Some(former)
    }

    /// Takes a value out. The token is stale from now on; readiness recorded for it is gone, and so are exclusions and masking.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.check_slot(token);
        let slot = self.slots.remove(token)?;
        if let Some(fd) = slot.fd() {
            self.index.clear(fd);
        }
        if let Mask::Listed(position) = slot.mask.get() {
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

    /// What the backend should be waiting for now: nothing while the handler is masked.
    #[must_use]
    pub fn effective_interest(&self, token: Token) -> Option<Interest> {
        self.effective(token, self.interest(token)?)
    }

    /// What the backend should be waiting for if the interest were this one.
    #[must_use]
    pub fn effective(&self, token: Token, interest: Interest) -> Option<Interest> {
        self.slots.get(token).map(|slot| match slot.mask.get() {
            Mask::None => interest,
            Mask::Excluded | Mask::Listed(_) => Interest::NONE,
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

    /// Checks that all parts agree with each other. This looks at every slot.
    ///
    /// # Panics
    /// If they do not: a fault of this crate.
    pub fn check(&self) {
        self.slots.check();
        let (mut numbers, mut listed) = (0, 0);
        for (token, slot) in self.slots.iter() {
            self.assert_slot(token, slot);
            numbers += usize::from(slot.fd().is_some());
            listed += usize::from(matches!(slot.mask.get(), Mask::Listed(_)));
        }
        assert_eq!(
            numbers,
            self.index.len(),
            "the index has numbers that nobody registered"
        );
        let lists: usize = self
            .groups
            .iter()
            .map(|group| self.groups.listed(group).len())
            .sum();
        assert_eq!(
            listed, lists,
            "a group lists a handler that is not masked, or one twice"
        );
    }

    /// What [`check`](Self::check) says about one slot, in debug builds: cheap enough for every operation.
    pub(crate) fn check_slot(&self, token: Token) {
        if cfg!(debug_assertions)
            && let Some(slot) = self.slots.get(token)
        {
            self.assert_slot(token, slot);
        }
    }

    fn assert_slot(&self, token: Token, slot: &Slot<T>) {
        if let Some(fd) = slot.fd() {
            let found = self.token_of(fd);
            assert_eq!(found, Some(token), "the index leads descriptor {fd} elsewhere");
        }
        let asked = slot.interest.mask();
        assert!(
            asked.contains(slot.pending),
            "{token:?} has readiness it never asked for"
        );
        assert!(
            slot.mask == PackedMask::NONE || slot.pending.is_empty(),
            "{token:?} is silenced and yet ready"
        );
        match slot.mask.get() {
            Mask::None => {}
            Mask::Excluded => assert!(slot.exclusions != 0, "nobody would arm {token:?} again"),
            Mask::Listed(position) => {
                assert!(
                    self.groups.is_paused(slot.group),
                    "nobody would arm {token:?} again"
                );
                let listed = self.groups.listed(slot.group).get(position as usize);
                assert_eq!(listed, Some(&token), "its group has forgotten it");
            }
        }
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
