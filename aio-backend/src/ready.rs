//! [`ReadyList`]: the events of one wait, up to a limit.

use crate::{Readiness, Token};

/// The default limit of events for one wait.
const USUAL: usize = 64;

/// The events of one wait, in the order of the backend, at most [`limit`](Self::limit).
///
/// Keep a list and [`clear`](Self::clear) it for each wait: it allocates only while it grows.
///
/// ```
/// use aio_backend::{Readiness, ReadyList, Token};
///
/// let mut ready = ReadyList::with_limit(1);
/// assert!(ready.push(Token::new(0, 0), Readiness::IN));
/// assert!(!ready.push(Token::new(1, 0), Readiness::IN)); // full: for the next wait
/// assert_eq!(ready.take_next(), Some((Token::new(0, 0), Readiness::IN)));
/// assert_eq!(ready.take_next(), None);
/// ```
#[derive(Debug)]
pub struct ReadyList {
    events: Vec<(Token, Readiness)>,
    /// The number of events that [`take_next`](Self::take_next) has returned.
    taken: usize,
    limit: usize,
    has_invalid: bool,
}

impl ReadyList {
    /// Makes an empty list for up to 64 events.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(USUAL)
    }

    /// Makes an empty list for up to `limit` events (at least one). It allocates memory for at most 64 of them.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            events: Vec::with_capacity(limit.clamp(1, USUAL)),
            limit: limit.max(1),
            taken: 0,
            has_invalid: false,
        }
    }

    /// Adds an event. Returns `false` and drops the event if the list is full. A level-triggered backend
    /// reports a dropped event again in the next wait.
    #[inline]
    pub fn push(&mut self, token: Token, readiness: Readiness) -> bool {
        if self.is_full() {
            return false;
        }
        self.add((token, readiness));
        true
    }

    #[inline]
    fn add(&mut self, event: (Token, Readiness)) {
        self.has_invalid |= event.1.contains(Readiness::NVAL);
        self.events.push(event);
    }

    /// Adds the events of a slice, each converted by `convert`. For a backend in which no event has
    /// [`Readiness::NVAL`]. It does not check whether there is [`room`](Self::room).
    ///
    /// # Panics
    /// In debug builds, if there is no room for all, or one has [`Readiness::NVAL`].
    // Without the attribute the compiler does not inline it: 10 instructions more for each wait.
    #[inline(always)]
    pub fn extend<E>(&mut self, events: &[E], convert: impl Fn(&E) -> (Token, Readiness)) {
        debug_assert!(
            events.len() <= self.room(),
            "the list has no room for so many events"
        );
        if let [event] = events {
            // The usual number, for which a loop is expensive.
            self.events.push(convert(event));
        } else {
            self.extend_many(events, &convert);
        }
        debug_assert!(
            !events
                .iter()
                .any(|event| convert(event).1.contains(Readiness::NVAL)),
            "an event means that its descriptor is not open"
        );
    }

    #[inline]
    fn extend_many<E>(&mut self, events: &[E], convert: impl Fn(&E) -> (Token, Readiness)) {
        self.events.extend(events.iter().map(convert));
    }

    /// Returns whether an event was added with [`Readiness::NVAL`].
    #[inline]
    #[must_use]
    pub fn has_invalid(&self) -> bool {
        self.has_invalid
    }

    /// Returns the largest number of events.
    #[inline]
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the number of further events for which there is room.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit - self.events.len()
    }

    /// Returns whether there is no room for another event.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Returns the number of events.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns whether there are no events.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Removes the event at a place, if there is one, and returns it. Later events move forward.
    ///
    /// For backends that find out after a wait that an event is stale. [`take_next`](Self::take_next) must
    /// not have returned it.
    pub fn remove(&mut self, place: usize) -> Option<(Token, Readiness)> {
        debug_assert!(place >= self.taken, "the event was returned");
        (place < self.len()).then(|| self.events.remove(place))
    }

    /// Removes all events, and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.events.clear();
        self.taken = 0;
        self.has_invalid = false;
    }

    /// Returns the first event that this function has not returned yet.
    #[inline]
    pub fn take_next(&mut self) -> Option<(Token, Readiness)> {
        let event = self.events.get(self.taken).copied()?;
        self.taken += 1;
        Some(event)
    }

    /// Returns the event that [`take_next`](Self::take_next) returned last.
    #[must_use]
    pub fn last_taken(&self) -> Option<(Token, Readiness)> {
        self.get(self.taken.checked_sub(1)?)
    }

    /// Returns the events that [`take_next`](Self::take_next) has not returned.
    #[inline]
    pub fn rest(&self) -> impl ExactSizeIterator<Item = (Token, Readiness)> + '_ {
        self.iter_from(self.taken)
    }

    /// Returns the event at this position, in the order in which they were reported.
    #[inline]
    #[must_use]
    pub fn get(&self, place: usize) -> Option<(Token, Readiness)> {
        self.events.get(place).copied()
    }

    /// Returns the events from this position on, in the order in which they were reported.
    #[inline]
    pub fn iter_from(&self, position: usize) -> impl ExactSizeIterator<Item = (Token, Readiness)> + '_ {
        self.events.get(position..).unwrap_or_default().iter().copied()
    }

    /// Returns the tokens of the events with [`Readiness::NVAL`] from this position on: their descriptors were closed.
    ///
    /// ```
    /// use aio_backend::{Readiness, ReadyList, Token};
    ///
    /// let mut ready = ReadyList::new();
    /// ready.push(Token::new(0, 0), Readiness::IN);
    /// ready.push(Token::new(1, 0), Readiness::NVAL);
    /// assert!(ready.invalid_from(0).eq([Token::new(1, 0)]));
    /// assert!(ready.invalid_from(2).next().is_none());
    /// ```
    pub fn invalid_from(&self, position: usize) -> impl Iterator<Item = Token> + '_ {
        let is_invalid = |event: &(Token, Readiness)| event.1.contains(Readiness::NVAL);
        self.iter_from(position)
            .filter(is_invalid)
            .map(|(token, _)| token)
    }

    /// Returns the events as a slice, in the order in which they were reported.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[(Token, Readiness)] {
        &self.events
    }

    /// Returns the events, in the order in which they were reported.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Token, Readiness)> + '_ {
        self.events.iter().copied()
    }
}

impl Default for ReadyList {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d2_a_full_list_refuses_and_keeps_its_order() {
        let mut list = ReadyList::with_limit(3);
        let pushed: Vec<bool> = (0..5)
            .map(|i| list.push(Token::new(i, 0), Readiness::IN))
            .collect();
        assert_eq!(pushed, [true, true, true, false, false]);
        assert_eq!(
            list.iter().map(|(token, _)| token.index()).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        list.clear();
        assert_eq!((list.len(), list.room()), (0, 3));
    }

    #[test]
    fn a_list_reports_its_length_and_its_room() {
        for (limit, expected) in [(0, 1), (1, 1), (2, 2), (100, 100)] {
            assert_eq!(ReadyList::with_limit(limit).limit(), expected);
        }
        assert_eq!(ReadyList::new().limit(), 64);
        let mut list = ReadyList::with_limit(3);
        assert!(list.is_empty());
        assert_eq!((list.len(), list.get(0)), (0, None));
        let [first, second] = [
            (Token::new(7, 1), Readiness::IN),
            (Token::new(2, 0), Readiness::OUT),
        ];
        list.push(first.0, first.1);
        list.push(second.0, second.1);
        assert!(!list.is_empty());
        assert_eq!((list.limit(), list.len(), list.room()), (3, 2, 1));
        assert_eq!(
            [list.get(0), list.get(1), list.get(2)],
            [Some(first), Some(second), None]
        );
        assert!(list.iter_from(1).eq([second]));
        assert_eq!((list.iter_from(2).len(), list.iter_from(3).len()), (0, 0));
    }

    #[test]
    fn a_list_returns_each_event_once_and_knows_of_invalid_ones() {
        let mut list = ReadyList::with_limit(8);
        let convert = |number: &u32| (Token::new(*number, 0), Readiness::IN);
        list.extend(&[0], convert);
        list.extend(&[1, 2], convert);
        list.extend(&[], convert);
        assert_eq!((list.len(), list.last_taken()), (3, None));
        for number in 0..3 {
            assert_eq!(list.take_next(), Some(convert(&number)));
            assert_eq!(list.last_taken(), Some(convert(&number)));
            assert_eq!(list.rest().len(), 2 - number as usize);
        }
        assert_eq!((list.take_next(), list.has_invalid()), (None, false));
        for numbers in [&[3][..], &[4, 5]] {
            list.clear();
            for number in numbers {
                list.push(convert(number).0, Readiness::NVAL);
            }
            assert!(list.has_invalid() && list.rest().len() == numbers.len());
        }
        list.clear();
        assert!(!list.has_invalid());
    }
}
