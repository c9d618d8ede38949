//! All registrations, found by their token.
//!
//! There can be many, so an entry is as small as it can be: 24 bytes, of which the share takes 16.

use aio_backend::{Interest, Token, Watched};

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

/// The low bits of [`Entry::packed`] are the interest, the others say who looks after it.
const INTEREST: u32 = 0b111;
const SILENT: u32 = 0;
const ARMED: u32 = 1 << INTEREST.count_ones();
/// The first place beside the set; each further one is as much more as this is more than [`ARMED`].
const SIDE: u32 = 2 * ARMED;

/// One registration.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) fd: Watched,
    generation: u32,
    packed: u32,
}

impl Entry {
    pub(crate) fn new(fd: Watched, token: Token, interest: Interest, state: State) -> Self {
        let mut entry = Self {
            fd,
            generation: token.generation(),
            packed: 0,
        };
        entry.set(interest, state);
        entry
    }

    /// What it waits for.
    #[inline]
    pub(crate) fn interest(&self) -> Interest {
        Interest::from_bits_truncate((self.packed & INTEREST) as u8)
    }

    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.packed & !INTEREST == ARMED
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        match self.packed & !INTEREST {
            SILENT => State::Silent,
            ARMED => State::Armed,
            place => State::Side((place - SIDE) / ARMED),
        }
    }

    #[inline]
    pub(crate) fn set(&mut self, interest: Interest, state: State) {
        let state = match state {
            State::Silent => SILENT,
            State::Armed => ARMED,
            State::Side(place) => SIDE + place * ARMED,
        };
        self.packed = state | u32::from(interest.bits());
    }

    pub(crate) fn set_state(&mut self, state: State) {
        self.set(self.interest(), state);
    }
}

/// The entries, by token index.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    slots: Vec<Option<Entry>>,
    used: usize,
}

impl Entries {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Whether the slot of `token` is in use, by this generation or another one.
    pub(crate) fn is_taken(&self, token: Token) -> bool {
        matches!(self.slots.get(token.index() as usize), Some(Some(_)))
    }

    /// Puts an entry into the slot of `token`, which is free.
    pub(crate) fn insert(&mut self, token: Token, entry: Entry) {
        let index = token.index() as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(entry);
        self.used += 1;
    }

    /// The entry of this very registration.
    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&Entry> {
        let entry = self.slots.get(token.index() as usize)?.as_ref()?;
        (entry.generation == token.generation()).then_some(entry)
    }

    /// The entry of this very registration.
    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Entry> {
        let entry = self.slots.get_mut(token.index() as usize)?.as_mut()?;
        (entry.generation == token.generation()).then_some(entry)
    }

    /// Takes the entry of this very registration out.
    pub(crate) fn remove(&mut self, token: Token) -> Option<Entry> {
        let slot = self.slots.get_mut(token.index() as usize)?;
        let removed = slot.take_if(|entry| entry.generation == token.generation())?;
        self.used -= 1;
        Some(removed)
    }

    /// All entries, with their tokens.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Token, &mut Entry)> {
        self.slots.iter_mut().zip(0..).filter_map(|(slot, index)| {
            let entry = slot.as_mut()?;
            Some((Token::new(index, entry.generation), entry))
        })
    }

    /// Shows all entries, in the order of their slots.
    pub(crate) fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        for (slot, index) in self.slots.iter().zip(0..) {
            if let Some(entry) = slot {
                each(&entry.fd, Token::new(index, entry.generation), entry.interest());
            }
        }
    }

    /// Hands all entries over, in the order of their slots.
    pub(crate) fn hand_over(self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        for (slot, index) in self.slots.into_iter().zip(0..) {
            if let Some(entry) = slot {
                let (token, interest) = (Token::new(index, entry.generation), entry.interest());
                each(entry.fd, token, interest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn share() -> Watched {
        Rc::new(std::io::stdin()).into()
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let mut entry = Entry::new(share(), Token::new(3, 9), Interest::READ, State::Silent);
        for interest in [Interest::NONE, Interest::READ, Interest::BOTH | Interest::EDGE] {
            for state in [
                State::Silent,
                State::Armed,
                State::Side(0),
                State::Side(1),
                State::Side(40_000_000),
            ] {
                entry.set(interest, state);
                assert_eq!((entry.interest(), entry.state()), (interest, state));
                assert_eq!(entry.is_armed(), state == State::Armed);
                entry.set_state(State::Side(7));
                assert_eq!((entry.interest(), entry.state()), (interest, State::Side(7)));
            }
        }
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Option<Entry>>(), 24);
    }

    #[test]
    fn r2_an_entry_is_found_by_its_own_generation() {
        let mut entries = Entries::default();
        let (old, new) = (Token::new(4, 1), Token::new(4, 2));
        entries.insert(new, Entry::new(share(), new, Interest::WRITE, State::Armed));
        assert!(entries.is_taken(old) && entries.get(old).is_none() && entries.remove(old).is_none());
        assert_eq!(entries.len(), 1);
        let all: Vec<Token> = entries.iter_mut().map(|(token, _)| token).collect();
        assert_eq!(all, [new]);
        assert!(entries.get_mut(new).is_some() && entries.remove(new).is_some());
        assert_eq!(entries.len(), 0);
    }
}
