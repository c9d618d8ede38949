//! [`HotSet`]: the polled handlers, dense, so that asking all of them is a walk over an array.

use aio_backend::Token;

const ABSENT: u32 = u32::MAX;

/// A dense array of polled handlers, found by token.
///
/// It is walked by position. Removing moves the last one into the gap, so a walk that removes must expect that.
#[derive(Debug)]
pub struct HotSet<H> {
    entries: Vec<(Token, H)>,
    /// By slot index: where in `entries`.
    positions: Vec<u32>,
}

impl<H> Default for HotSet<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H> HotSet<H> {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            positions: Vec::new(),
        }
    }

    /// Adds a handler, or replaces the one that is there for this slot; the former one is returned.
    pub fn insert(&mut self, token: Token, handler: H) -> Option<H> {
        if let Some(position) = self.slot_position(token) {
            let former = std::mem::replace(&mut self.entries[position], (token, handler));
            return Some(former.1);
        }
        let index = token.index() as usize;
        if self.positions.len() <= index {
            self.positions.resize(index + 1, ABSENT);
        }
        self.positions[index] = u32::try_from(self.entries.len()).unwrap_or(ABSENT);
        self.entries.push((token, handler));
        None
    }

    /// Replaces a handler that is there; `None`, and nothing is done, if it is not.
    pub fn replace(&mut self, token: Token, handler: H) -> Option<H> {
        let position = self.position(token)?;
        Some(std::mem::replace(&mut self.entries[position].1, handler))
    }

    /// Takes a handler out.
    pub fn remove(&mut self, token: Token) -> Option<H> {
        let position = self.position(token)?;
        self.positions[token.index() as usize] = ABSENT;
        let (_, handler) = self.entries.swap_remove(position);
        if let Some((moved, _)) = self.entries.get(position) {
            self.positions[moved.index() as usize] = u32::try_from(position).unwrap_or(ABSENT);
        }
        Some(handler)
    }

    /// Whether the handler is there.
    #[must_use]
    pub fn contains(&self, token: Token) -> bool {
        self.position(token).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The handler at a position below [`len`](Self::len).
    #[must_use]
    pub fn get(&self, position: usize) -> Option<(Token, &H)> {
        self.entries
            .get(position)
            .map(|(token, handler)| (*token, handler))
    }

    /// All handlers, in the order of a walk.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Token, &H)> {
        self.entries.iter().map(|(token, handler)| (*token, handler))
    }

    /// Takes all handlers out.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.positions.clear();
    }

    fn slot_position(&self, token: Token) -> Option<usize> {
        self.positions
            .get(token.index() as usize)
            .filter(|at| **at != ABSENT)
            .map(|at| *at as usize)
    }

    fn position(&self, token: Token) -> Option<usize> {
        self.slot_position(token)
            .filter(|position| self.entries[*position].0 == token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a8_positions_stay_right_through_removals() {
        let mut set = HotSet::new();
        let tokens: Vec<Token> = (0..10).map(|index| Token::new(index * 3, 1)).collect();
        for (value, token) in tokens.iter().enumerate() {
            assert_eq!(set.insert(*token, value), None);
        }
        assert_eq!(set.remove(tokens[0]), Some(0));
        assert_eq!(set.remove(tokens[9]), Some(9));
        assert_eq!(set.remove(tokens[5]), Some(5));
        assert_eq!(set.remove(tokens[5]), None);
        for value in [1, 2, 3, 4, 6, 7, 8] {
            let (_, found) = set.iter().find(|(token, _)| *token == tokens[value]).unwrap();
            assert_eq!(*found, value);
            assert_eq!(set.replace(tokens[value], value + 100), Some(value));
        }
        assert_eq!(set.len(), 7);
    }

    #[test]
    fn r2_a_former_generation_is_not_found_but_gives_way() {
        let mut set = HotSet::new();
        let (old, new) = (Token::new(4, 1), Token::new(4, 2));
        set.insert(old, "old");
        assert!(!set.contains(new) && set.remove(new).is_none());
        assert_eq!(set.insert(new, "new"), Some("old"));
        assert!(!set.contains(old) && set.contains(new));
        assert_eq!(set.len(), 1);
    }
}
