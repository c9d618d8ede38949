//! [`Registry`]: values under tokens, found by descriptor number.
//!
//! A value leaves the registry only as a return value, so that the caller decides where to drop it. The registry never calls a value.
//! `masking.rs` records events.
//!
//! In debug builds each operation that changes a slot checks it before and after.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use aio_backend::{Interest, Readiness, ReadyList, Token};

use crate::GroupId;
use crate::groups::Groups;
use crate::index::FdIndex;
use crate::mask::{Mask, PackedMask};
use crate::slots::Slots;
use crate::state::State;

/// The error of [`Registry::insert`]: the descriptor number already has a live registration.
///
/// # Examples
/// ```
/// use aio_backend::Interest;
/// use aio_handlers::{GroupId, Registry};
///
/// let mut registry = Registry::new();
/// let token = registry.insert(Some(7), "first", Interest::READ, GroupId::DEFAULT).unwrap();
/// let occupied = registry.insert(Some(7), "second", Interest::WRITE, GroupId::DEFAULT).unwrap_err();
/// assert_eq!((occupied.value, occupied.token), ("second", token));
/// ```
#[derive(Debug)]
pub struct Occupied<T> {
    /// The value that was not registered.
    pub value: T,
    /// The registration of the descriptor number.
    pub token: Token,
    /// The descriptor number.
    pub fd: RawFd,
}

impl<T> fmt::Display for Occupied<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the descriptor has a handler already: {:?}", self.token)
    }
}

impl<T: fmt::Debug> std::error::Error for Occupied<T> {}

/// An error of the kind `AlreadyExists` that says what to do instead. The value is dropped.
impl<T> From<Occupied<T>> for io::Error {
    fn from(occupied: Occupied<T>) -> Self {
        let number = occupied.fd;
        Self::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "descriptor {number} has a handler already: drop its registration first, or put the new one in its place with `replace`"
            ),
        )
    }
}

/// A change of a handler's interest, and what it means for the backend: see [`Registry::change`].
///
/// # Examples
/// ```
/// use aio_backend::Interest;
/// use aio_handlers::{GroupId, InterestChange, Registry};
///
/// let mut registry = Registry::new();
/// let token = registry.insert(Some(7), "a disk", Interest::READ, GroupId::DEFAULT)?;
/// let change: InterestChange = registry.change(token, Some(Interest::BOTH)).expect("it is registered");
/// // ... pass `change.to` to the backend, and once it has accepted:
/// registry.set_interest(token, change.interest);
/// # Ok::<(), aio_handlers::Occupied<&str>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterestChange {
    /// The new interest of the handler.
    pub interest: Interest,
    /// The interest that the backend has: `NONE` while the handler is masked, and after its only event.
    pub from: Interest,
    /// The interest that the backend should have after the change: `NONE` while the handler is masked.
    pub to: Interest,
}

/// The state of one handler.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    pub(crate) value: T,
    /// The descriptor number, or [`NO_FD`].
    fd: RawFd,
    pub(crate) group: GroupId,
    pub(crate) mask: PackedMask,
    pub(crate) state: State,
}

const NO_FD: RawFd = -1;

impl<T> Slot<T> {
    fn fd(&self) -> Option<RawFd> {
        (self.fd != NO_FD).then_some(self.fd)
    }

    /// Adds readiness to what is recorded, and the token to `edges` if the backend does not report it again.
    #[inline]
    pub(crate) fn add(&mut self, token: Token, readiness: Readiness, edges: &mut Vec<Token>) {
        if self.state.interest().reports_once() && self.state.pending().is_empty() {
            edges.push(token);
        }
        self.state.add_pending(readiness);
    }

    /// Returns whether the backend stays silent about it when its interest is set.
    #[inline]
    fn is_silent(&self) -> bool {
        matches!(self.mask.get(), Mask::Excluded | Mask::Listed(_))
    }

    /// Ends the sleep after the only event.
    fn wake(&mut self) {
        if self.mask.get() == Mask::Asleep {
            self.mask = PackedMask::NONE;
        }
    }
}

/// Values under tokens, with at most one live value for each descriptor number.
#[derive(Debug)]
pub struct Registry<T> {
    pub(crate) slots: Slots<Slot<T>>,
    pub(crate) index: FdIndex,
    pub(crate) groups: Groups,
    /// Registrations with recorded edges that may not have been taken.
    pub(crate) edges: Vec<Token>,
    /// The list that the innermost iteration delivers.
    pub(crate) delivery: Option<Box<ReadyList>>,
    /// Its rest is delivered straight from the list, not from the slots.
    pub(crate) is_direct: bool,
    /// The number of events of tokens without a live registration.
    pub(crate) stale: u64,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Registry<T> {
    /// Makes an empty registry with the group [`GroupId::DEFAULT`].
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
            delivery: None,
            is_direct: false,
            stale: 0,
        }
    }

    /// Registers a value. Without a descriptor number (or with -1) only the token finds it.
    ///
    /// In a paused group its first event masks it, as for any other registration.
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
        if let Some(fd) = fd
            && let Some(token) = self.token_of(fd)
        {
            return Err(Occupied { value, token, fd });
        }
        let token = self.slots.insert(Slot {
            value,
            fd: fd.unwrap_or(NO_FD),
            group,
            mask: PackedMask::NONE,
            state: State::new(interest),
        });
        if let Some(fd) = fd {
            self.index.set(fd, token.index());
        }
        self.check_slot(token);
        Ok(token)
    }

    /// Replaces a value and returns the former one. Returns `None` and changes nothing if the token is stale.
    ///
    /// The token, the interest, the group, exclusions and the mask stay, except that a value whose only event was delivered
    /// ([`delivered`](Self::delivered)) gives way to one that waits for an event. Recorded readiness is dropped: a level-triggered
    /// backend reports it again.
    pub fn replace(&mut self, token: Token, value: T) -> Option<T> {
        self.settle_others(token);
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        slot.state.set_pending(Readiness::empty());
        slot.wake();
        let former = std::mem::replace(&mut slot.value, value);
        self.check_slot(token);
        Some(former)
    }

    /// Changes the interest and returns the former one. Returns `None` if the token is stale.
    ///
    /// Recorded readiness outside the new interest is dropped; all of it with [`Interest::ONESHOT`], because the backend, which is armed
    /// again, reports it again. Pass the [effective](Self::effective_interest) interest to the backend; it stays `NONE` while the
    /// handler is paused or excluded and masked.
    #[inline]
    pub fn set_interest(&mut self, token: Token, interest: Interest) -> Option<Interest> {
        self.settle_others(token);
        self.check_slot(token);
        let slot = self.slots.get_mut(token)?;
        let former = slot.state.interest();
        let pending = slot.state.pending();
        if !pending.is_empty() {
            let is_once = interest.contains(Interest::ONESHOT);
            let kept = if is_once {
                Readiness::empty()
            } else {
                pending & interest.mask()
            };
            slot.state.set_pending(kept);
        }
        slot.state.set_interest(interest);
        slot.wake();
        self.check_slot(token);
        Some(former)
    }

    /// Removes a value and returns it. The token is then stale; recorded readiness, exclusions and the mask are dropped.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.settle_others(token);
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

    /// Returns the live registration of a descriptor number.
    #[must_use]
    pub fn token_of(&self, fd: RawFd) -> Option<Token> {
        self.slots.at(self.index.get(fd)?)
    }

    /// Returns a value.
    #[must_use]
    pub fn get(&self, token: Token) -> Option<&T> {
        self.slots.get(token).map(|slot| &slot.value)
    }

    /// Returns a value, for changes.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        self.slots.get_mut(token).map(|slot| &mut slot.value)
    }

    /// Returns the interest of the handler.
    #[must_use]
    pub fn interest(&self, token: Token) -> Option<Interest> {
        self.slots.get(token).map(|slot| slot.state.interest())
    }

    /// Returns a value, its interest, and whether the backend stays silent about it if the interest is set: it is paused or excluded, and
    /// masked.
    #[inline]
    #[must_use]
    pub fn find(&self, token: Token) -> Option<(&T, Interest, bool)> {
        let slot = self.slots.get(token)?;
        Some((&slot.value, slot.state.interest(), slot.is_silent()))
    }

    /// Returns the interest that the backend should have: `NONE` while the handler is masked, and after its only event.
    #[must_use]
    pub fn effective_interest(&self, token: Token) -> Option<Interest> {
        let slot = self.slots.get(token)?;
        if slot.mask.get() == Mask::Asleep {
            return Some(Interest::NONE);
        }
        self.effective(token, slot.state.interest())
    }

    /// Returns the interest that the backend should have if the handler's interest were set to `interest`.
    #[must_use]
    pub fn effective(&self, token: Token, interest: Interest) -> Option<Interest> {
        let slot = self.slots.get(token)?;
        Some(if slot.is_silent() {
            Interest::NONE
        } else {
            interest
        })
    }

    /// Returns what changes for the backend if the handler's interest is set to `interest`, or (`None`) is set again.
    ///
    /// ```
    /// use aio_backend::{Interest, Readiness};
    /// use aio_handlers::{GroupId, Registry};
    ///
    /// let mut registry = Registry::new();
    /// let token = registry.insert(Some(7), "a disk", Interest::READ, GroupId::DEFAULT)?;
    /// let change = registry.change(token, Some(Interest::WRITE)).expect("it is registered");
    /// assert_eq!((change.from, change.to), (Interest::READ, Interest::WRITE));
    /// registry.pause(GroupId::DEFAULT);
    /// registry.record(token, Readiness::IN); // masked: the backend stays silent about it
    /// let change = registry.change(token, None).expect("it is registered");
    /// assert_eq!((change.from, change.interest, change.to), (Interest::NONE, Interest::READ, Interest::NONE));
    /// # Ok::<(), aio_handlers::Occupied<&str>>(())
    /// ```
    #[must_use]
    pub fn change(&self, token: Token, interest: Option<Interest>) -> Option<InterestChange> {
        let interest = interest.or_else(|| self.interest(token))?;
        Some(InterestChange {
            interest,
            from: self.effective_interest(token)?,
            to: self.effective(token, interest)?,
        })
    }

    /// Returns the group of the handler.
    #[must_use]
    pub fn group(&self, token: Token) -> Option<GroupId> {
        self.slots.get(token).map(|slot| slot.group)
    }

    /// Returns the number of events that arrived for tokens without a live registration.
    #[must_use]
    pub fn stale_events(&self) -> u64 {
        self.stale
    }

    /// Returns the number of live registrations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether there are no live registrations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all live registrations, in the order of their slots. It walks over every slot that was ever used.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.slots.iter().map(|(token, _)| token)
    }

    /// Checks that all parts of the registry are consistent. It walks over every slot.
    ///
    /// # Panics
    /// If they are not, which is a bug of this crate.
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
            "the index has a number without a registration"
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

    /// Checks one slot as [`check`](Self::check) does, in debug builds. It is cheap enough for every operation.
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
        let interest = slot.state.interest().mask();
        assert!(
            interest.contains(slot.state.pending()),
            "{token:?} has readiness outside its interest"
        );
        // A backend that reports more than one event for an interest in one does not break the registry.
        assert!(
            matches!(slot.mask.get(), Mask::None | Mask::Asleep) || slot.state.pending().is_empty(),
            "{token:?} is masked and yet ready"
        );
        match slot.mask.get() {
            Mask::None => {}
            Mask::Asleep => assert!(
                interest != Readiness::NVAL,
                "{token:?} had an event without an interest"
            ),
            Mask::Excluded => assert!(
                slot.state.exclusions() != 0,
                "no operation would arm {token:?} again"
            ),
            Mask::Listed(position) => {
                assert!(
                    self.groups.is_paused(slot.group),
                    "no operation would arm {token:?} again"
                );
                let listed = self.groups.listed(slot.group).get(position as usize);
                assert_eq!(listed, Some(&token), "its group does not list it");
            }
        }
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
