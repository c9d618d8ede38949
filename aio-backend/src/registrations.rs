//! [`Registrations`]: a backend's table of registrations, indexed by token.

use std::fmt;

use crate::{Interest, Token, Watched};

/// The low bits of [`Entry::packed`] that hold an interest.
const INTEREST_BITS: u32 = 6;
const INTEREST_MASK: u32 = (1 << INTEREST_BITS) - 1;
/// Every interest fits into its bits.
const _: () = assert!((Interest::all().bits() as u32) <= INTEREST_MASK);

/// One registration: the descriptor, its interest, and a number for the backend.
///
/// It takes 24 bytes, also inside an `Option`.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use aio_backend::{Interest, Registrations, Token};
///
/// let (reader, _writer) = std::io::pipe()?;
/// let (mut registrations, token) = (Registrations::new(), Token::new(0, 0));
/// registrations.insert(token, Rc::new(reader).into(), Interest::READ, 7);
/// let entry = registrations.get_mut(token).expect("it was inserted");
/// assert_eq!((entry.interest(), entry.mark()), (Interest::READ, 7));
/// entry.set(Interest::NONE, 8);
/// assert_eq!((entry.interest(), entry.mark()), (Interest::NONE, 8));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Entry {
    fd: Watched,
    generation: u32,
    packed: u32,
}

impl Entry {
    /// The largest mark that an entry can hold.
    pub const MARK_MAX: u32 = u32::MAX >> INTEREST_BITS;

    /// Returns the descriptor. The entry keeps it open.
    #[inline]
    #[must_use]
    pub fn fd(&self) -> &Watched {
        &self.fd
    }

    /// Returns the descriptor, and drops the rest of the entry.
    #[must_use]
    pub fn into_fd(self) -> Watched {
        self.fd
    }

    /// Returns the interest.
    #[inline]
    #[must_use]
    pub fn interest(&self) -> Interest {
        Interest::from_bits_truncate((self.packed & INTEREST_MASK) as u8)
    }

    /// Returns the number for the backend, such as a state or a position in an array.
    #[inline]
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.packed >> INTEREST_BITS
    }

    /// Changes the interest and the mark.
    ///
    /// # Panics
    /// In debug builds, if `mark` is larger than [`MARK_MAX`](Self::MARK_MAX).
    #[inline]
    pub fn set(&mut self, interest: Interest, mark: u32) {
        debug_assert!(mark <= Self::MARK_MAX, "the mark {mark} has too many bits");
        self.packed = mark << INTEREST_BITS | u32::from(interest.bits());
    }

    /// Changes the mark and keeps the interest.
    ///
    /// # Panics
    /// As [`set`](Self::set).
    #[inline]
    pub fn set_mark(&mut self, mark: u32) {
        self.set(self.interest(), mark);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("fd", &self.fd)
            .field("interest", &self.interest())
            .field("mark", &self.mark())
            .finish()
    }
}

/// A table with one [`Entry`] for each token, at the token's index in an array.
///
/// Tokens have dense indices, so every operation on one entry takes constant time. A token of another generation does not find the
/// entry.
///
/// ```
/// use std::rc::Rc;
/// use aio_backend::{Interest, Registrations, Token};
///
/// let (reader, _writer) = std::io::pipe()?;
/// let mut registrations = Registrations::new();
/// let token = Token::new(0, 7);
/// registrations.insert(token, Rc::new(reader).into(), Interest::READ, 0);
///
/// assert!(registrations.get(Token::new(0, 6)).is_none(), "an earlier generation");
/// let entry = registrations.remove(token).expect("it was inserted");
/// assert_eq!(entry.interest(), Interest::READ);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Registrations {
    slots: Vec<Option<Entry>>,
    used: usize,
}

impl Registrations {
    /// Makes a table without entries. It allocates nothing until the first insertion.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            used: 0,
        }
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Returns whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Returns whether the slot of `token` has an entry, of any generation.
    #[inline]
    #[must_use]
    pub fn is_taken(&self, token: Token) -> bool {
        matches!(self.slots.get(token.index() as usize), Some(Some(_)))
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// In debug builds, if the slot of `token` [is taken](Self::is_taken), or as [`Entry::set`].
    // Without the attribute the compiler does not inline it: 25 instructions more for each registration.
    #[inline(always)]
    pub fn insert(&mut self, token: Token, fd: Watched, interest: Interest, mark: u32) {
        debug_assert!(!self.is_taken(token), "the slot of {token:?} is taken");
        let index = token.index() as usize;
        if index >= self.slots.len() {
            self.grow(index);
        }
        let mut entry = Entry {
            fd,
            generation: token.generation(),
            packed: 0,
        };
        entry.set(interest, mark);
        self.slots[index] = Some(entry);
        self.used += 1;
    }

    #[cold]
    fn grow(&mut self, index: usize) {
        self.slots.resize_with(index + 1, || None);
    }

    /// Returns the entry of `token`.
    #[inline]
    #[must_use]
    pub fn get(&self, token: Token) -> Option<&Entry> {
        let entry = self.slots.get(token.index() as usize)?.as_ref()?;
        (entry.generation == token.generation()).then_some(entry)
    }

    /// Returns the entry of `token`, for changes.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut Entry> {
        let entry = self.slots.get_mut(token.index() as usize)?.as_mut()?;
        (entry.generation == token.generation()).then_some(entry)
    }

    /// Returns the entry in slot `index`, with its token.
    #[inline]
    #[must_use]
    pub fn at(&self, index: u32) -> Option<(Token, &Entry)> {
        let entry = self.slots.get(index as usize)?.as_ref()?;
        Some((Token::new(index, entry.generation), entry))
    }

    /// Returns the entry in slot `index`, for changes.
    #[inline]
    #[must_use]
    pub fn at_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// Removes the entry of `token` and returns it. The descriptor stays open for as long as the entry lives.
    #[inline]
    pub fn remove(&mut self, token: Token) -> Option<Entry> {
        let slot = self.slots.get_mut(token.index() as usize)?;
        let removed = slot.take_if(|entry| entry.generation == token.generation())?;
        self.used -= 1;
        Some(removed)
    }

    /// Returns all entries with their tokens, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &Entry)> {
        (0u32..).zip(&self.slots).filter_map(|(index, slot)| {
            let entry = slot.as_ref()?;
            Some((Token::new(index, entry.generation), entry))
        })
    }

    /// Returns all entries with their tokens, in the order of their slots, for changes.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Token, &mut Entry)> {
        (0u32..).zip(&mut self.slots).filter_map(|(index, slot)| {
            let entry = slot.as_mut()?;
            Some((Token::new(index, entry.generation), entry))
        })
    }

    /// Calls `each` for every entry, as [`Backend::visit`](crate::Backend::visit) requires.
    pub fn visit(&self, each: &mut dyn FnMut(&Watched, Token, Interest)) {
        for (token, entry) in self.iter() {
            each(&entry.fd, token, entry.interest());
        }
    }

    /// Passes every descriptor to `each`, as [`Backend::drain`](crate::Backend::drain) requires.
    pub fn drain(self, each: &mut dyn FnMut(Watched, Token, Interest)) {
        for (index, slot) in (0u32..).zip(self.slots) {
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

    fn fd() -> Watched {
        Rc::new(std::io::stdin()).into()
    }

    #[test]
    fn packing_round_trips() {
        let token = Token::new(3, 9);
        let mut registrations = Registrations::new();
        registrations.insert(token, fd(), Interest::READ, 0);
        let entry = registrations.get_mut(token).unwrap();
        for interest in [Interest::NONE, Interest::READ, Interest::all()] {
            for mark in [0, 1, 40_000_000, Entry::MARK_MAX] {
                entry.set(interest, mark);
                assert_eq!((entry.interest(), entry.mark()), (interest, mark));
                entry.set_mark(7);
                assert_eq!((entry.interest(), entry.mark()), (interest, 7));
            }
        }
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Option<Entry>>(), 24);
    }

    #[test]
    fn r2_an_entry_is_found_by_its_own_generation() {
        let mut registrations = Registrations::new();
        let (old, new) = (Token::new(4, 1), Token::new(4, 2));
        registrations.insert(new, fd(), Interest::WRITE, 1);
        assert!(registrations.is_taken(old));
        assert!(registrations.get(old).is_none() && registrations.get_mut(old).is_none());
        assert!(registrations.remove(old).is_none());
        assert_eq!((registrations.len(), registrations.is_empty()), (1, false));
        assert_eq!(
            registrations.iter().map(|(token, _)| token).collect::<Vec<_>>(),
            [new]
        );
        assert_eq!(registrations.at(4).map(|(token, _)| token), Some(new));
        assert!(registrations.at(3).is_none() && registrations.at_mut(5).is_none());
        assert!(registrations.remove(new).is_some() && registrations.remove(new).is_none());
        assert_eq!((registrations.len(), registrations.is_empty()), (0, true));
        assert!(!registrations.is_taken(new));
    }

    #[test]
    fn a_drain_passes_every_descriptor_on_and_a_visit_shows_them() {
        let owner = Rc::new(std::io::stdin());
        let mut registrations = Registrations::new();
        for index in [2, 0] {
            registrations.insert(Token::new(index, 5), owner.clone().into(), Interest::READ, index);
        }
        let mut seen = Vec::new();
        registrations.visit(&mut |_, token, interest| seen.push((token, interest)));
        assert_eq!(seen, [0, 2].map(|index| (Token::new(index, 5), Interest::READ)));
        let mut drained = Vec::new();
        registrations.drain(&mut |fd, token, interest| drained.push((fd, token, interest)));
        assert_eq!(drained.len(), 2);
        assert_eq!(Rc::strong_count(&owner), 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "is taken")]
    fn r2_a_slot_has_one_entry() {
        let mut registrations = Registrations::new();
        registrations.insert(Token::new(1, 0), fd(), Interest::READ, 0);
        registrations.insert(Token::new(1, 1), fd(), Interest::READ, 0);
    }
}
