//! Everything that is watched, found by its token.

use aio_backend::{Interest, Token, Watched};

/// One registration, as it would be added to a backend.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) fd: Watched,
    pub(crate) token: Token,
    pub(crate) interest: Interest,
}

/// The registrations, by token index.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Option<Registration>>,
    len: usize,
}

impl Table {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether the slot of `token` is in use, by this generation or another one.
    pub(crate) fn is_taken(&self, token: Token) -> bool {
        matches!(self.slots.get(token.index() as usize), Some(Some(_)))
    }

    /// Puts a registration into its slot, which is free.
    pub(crate) fn insert(&mut self, registration: Registration) {
        let index = registration.token.index() as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(registration);
        self.len += 1;
    }

    /// What `token` waits for.
    pub(crate) fn interest(&self, token: Token) -> Option<Interest> {
        let slot = self.slots.get(token.index() as usize)?.as_ref()?;
        (slot.token == token).then_some(slot.interest)
    }

    /// Notes what `token` waits for.
    pub(crate) fn set_interest(&mut self, token: Token, interest: Interest) {
        let slot = self.slots.get_mut(token.index() as usize);
        if let Some(Some(slot)) = slot
            && slot.token == token
        {
            slot.interest = interest;
        }
    }

    /// Takes the registration of this very token out.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Registration> {
        let slot = self.slots.get_mut(token.index() as usize)?;
        let removed = slot.take_if(|slot| slot.token == token)?;
        self.len -= 1;
        Some(removed)
    }

    /// All registrations.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Registration> {
        self.slots.iter().flatten()
    }

    /// All registrations, by value.
    pub(crate) fn into_all(self) -> impl Iterator<Item = Registration> {
        self.slots.into_iter().flatten()
    }
}
