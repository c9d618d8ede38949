//! All registrations, found by their token.

use aio_backend::{Interest, Token, Watched};

/// One registration.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) fd: Watched,
    pub(crate) token: Token,
    pub(crate) interest: Interest,
    pub(crate) state: State,
}

/// Who looks after a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody: it waits for nothing.
    Silent,
    /// The kernel: it is in the set.
    Armed,
    /// We: it is at this place beside the set.
    Side(u32),
}

/// The entries, by token index.
#[derive(Debug, Default)]
pub(crate) struct Entries(Vec<Option<Entry>>);

impl Entries {
    /// Whether the slot of `token` is in use, by this generation or another one.
    pub(crate) fn is_taken(&self, token: Token) -> bool {
        matches!(self.0.get(token.index() as usize), Some(Some(_)))
    }

    /// Puts an entry into its slot, which is free.
    pub(crate) fn insert(&mut self, entry: Entry) {
        let index = entry.token.index() as usize;
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(entry);
    }

    /// The entry of this very registration.
    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&Entry> {
        let entry = self.0.get(token.index() as usize)?.as_ref()?;
        (entry.token == token).then_some(entry)
    }

    /// The entry of this very registration.
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Entry> {
        let entry = self.0.get_mut(token.index() as usize)?.as_mut()?;
        (entry.token == token).then_some(entry)
    }

    /// Takes the entry of this very registration out.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Entry> {
        self.0
            .get_mut(token.index() as usize)?
            .take_if(|entry| entry.token == token)
    }

    /// All entries.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.0.iter_mut().flatten()
    }

    /// All entries, by value.
    pub(crate) fn into_all(self) -> impl Iterator<Item = Entry> {
        self.0.into_iter().flatten()
    }
}
