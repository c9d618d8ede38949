//! [`Registry`]: values under tokens, found by descriptor number.
//!
//! A value leaves the registry only as a return value, so that the caller decides where to drop it. The registry never calls a value.
//! `masking.rs` records events.
//!
//! In debug builds each operation that changes a slot checks it before and after.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use aio_backend::{Flag, Interest, Readiness, ReadyList, Token};

use crate::GroupId;
use crate::edges::Edges;
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

/// Makes an error of the kind `AlreadyExists` whose text names the remedy. The value is dropped.
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

/// The state of one handler.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    pub(crate) value: T,
    /// The descriptor number, or [`NO_FD`].
    fd: RawFd,
    pub(crate) group: GroupId,
    pub(crate) mask: PackedMask,
    pub(crate) state: State,
    /// The exclusions that have ended before their `readmit`.
    pub(crate) ended: u16,
    /// See [`Registry::is_watched`].
    pub(crate) is_watched: bool,
}

const NO_FD: RawFd = -1;

impl<T> Slot<T> {
    pub(crate) fn fd(&self) -> Option<RawFd> {
        (self.fd != NO_FD).then_some(self.fd)
    }

    /// Adds readiness to the recorded one, and the token to `edges` if the backend does not report the
    /// readiness again.
    #[inline]
    pub(crate) fn add(&mut self, token: Token, readiness: Readiness, edges: &mut Edges) {
        if self.state.interest().reports_once() && self.state.pending().is_empty() {
            edges.push(token);
        }
        self.state.add_pending(readiness);
    }

    /// Ends the mask of a one-shot event.
    pub(crate) fn wake(&mut self) {
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
    /// Registrations with recorded edges, some of which may have been taken.
    pub(crate) edges: Edges,
    /// The list that the innermost iteration delivers, if its rest is delivered straight from the list.
    pub(crate) direct: Option<Box<ReadyList>>,
    /// The same list, if the events are in their slots, too.
    pub(crate) recorded: Option<Box<ReadyList>>,
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

    /// Makes an empty registry. `edges` shows whether it [has edges](Self::has_edges), `paused` whether it
    /// [has paused](Self::has_paused) groups.
    #[must_use]
    pub fn flagged(edges: Flag, paused: Flag) -> Self {
        Self {
            edges: Edges::flagged(edges),
            groups: Groups::flagged(paused),
            ..Self::new()
        }
    }

    pub(crate) fn with_first_generation(generation: u32) -> Self {
        Self {
            slots: Slots::starting_at(generation),
            index: FdIndex::default(),
            groups: Groups::flagged(Flag::default()),
            edges: Edges::default(),
            direct: None,
            recorded: None,
            stale: 0,
        }
    }

    /// Registers a value. Without a descriptor number (or with -1) only the token finds it.
    ///
    /// If the group is paused, the first event masks the registration, as for any other.
    ///
    /// # Errors
    /// [`Occupied`], with the value, if the number has a live registration.
    ///
    /// # Panics
    /// If `group` [was not made](Self::has_group) by this registry, or with 2^32 - 1 registrations.
    #[inline(always)]
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
            ended: 0,
            is_watched: interest != Interest::NONE,
        });
        if let Some(fd) = fd {
            self.index.set(fd, token.index());
        }
        self.check_slot(token);
        Ok(token)
    }

    /// Removes a value and returns it. The token is then stale; recorded readiness, exclusions and the mask are dropped.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.remove_watched(token).map(|(value, _)| value)
    }

    /// As [`remove`](Self::remove). Also returns whether it [was watched](Self::is_watched), so that the
    /// caller removes it from the backend, too.
    #[inline(always)]
    pub fn remove_watched(&mut self, token: Token) -> Option<(T, bool)> {
        self.settle_others(token);
        self.check_slot(token);
        // Only the value is moved.
        let slot = self.slots.get(token)?;
        let (fd, mask, group, is_watched) = (slot.fd(), slot.mask, slot.group, slot.is_watched);
        let value = self.slots.remove(token)?.value;
        if let Some(fd) = fd {
            self.index.clear(fd);
        }
        if let Mask::Listed(position) = mask.get() {
            self.unlist(group, position);
        }
        Some((value, is_watched))
    }

    /// Returns the live registration of a descriptor number.
    #[must_use]
    pub fn token_of(&self, fd: RawFd) -> Option<Token> {
        self.slots.at(self.index.get(fd)?)
    }

    /// Returns the descriptor number of a live registration, if it has one.
    #[must_use]
    pub fn fd(&self, token: Token) -> Option<RawFd> {
        self.slots.get(token)?.fd()
    }

    /// Returns whether the backend has the descriptor of a live registration, which it has from the first
    /// interest other than [`Interest::NONE`] on. Until then a caller need not pass the descriptor to the
    /// backend.
    #[must_use]
    pub fn is_watched(&self, token: Token) -> bool {
        self.slots.get(token).is_some_and(|slot| slot.is_watched)
    }

    /// Marks a value as special until it is replaced, for values whose events need more than a call. Its
    /// events are never delivered [directly](Self::next_event), but always [resolved](Self::resolve). No
    /// effect if the token is stale.
    pub fn set_special(&mut self, token: Token) {
        if let Some(slot) = self.slots.get_mut(token) {
            slot.state.set_special(true);
        }
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
    /// If they are not consistent, which is a bug of this crate.
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
        // A backend that reports more than one event for a one-shot interest does not break the registry.
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
