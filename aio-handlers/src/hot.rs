//! [`HotSet`]: the polled handlers, dense, so that asking all of them is a walk over an array.

use aio_backend::Token;

use crate::steps::step;

const ABSENT: u32 = u32::MAX;

/// A dense array of polled handlers, found by token: joining and leaving cost O(1), however many there are.
///
/// It is walked by position. A handler that joins goes to the end. When one leaves, the last one moves into the gap: a
/// walk that removes the handler at its position looks at the same position again, and one that goes on while others are
/// removed may miss the one that moved. Handlers leave by return value, so that they are dropped where their user likes.
///
/// Tokens are the registry's: the index of a token's slot is the index into an array here.
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

    /// Adds a handler, or replaces the one that is there for this slot, of whichever generation; the former one is
    /// returned. The position of one that is replaced stays.
    pub fn insert(&mut self, token: Token, handler: H) -> Option<H> {
        if let Some(position) = self.position_of_slot(token) {
            let former = std::mem::replace(&mut self.entries[position], (token, handler));
            return Some(former.1);
        }
        let index = token.index() as usize;
        if self.positions.len() <= index {
            self.positions.resize(index + 1, ABSENT);
        }
        // Entries have different slots, so there are at most 2^32, and that many do not fit into memory.
        self.positions[index] = u32::try_from(self.entries.len()).unwrap_or(ABSENT);
        self.entries.push((token, handler));
        self.check_position(self.entries.len() - 1);
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
            self.check_position(position);
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

    /// The handler at a position; `None` from [`len`](Self::len) on.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<(Token, &H)> {
        step();
        self.entries
            .get(position)
            .map(|(token, handler)| (*token, handler))
    }

    /// All handlers as an array, in the order of a walk.
    #[must_use]
    pub fn entries(&self) -> &[(Token, H)] {
        &self.entries
    }

    /// All handlers, in the order of a walk.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Token, &H)> {
        self.entries.iter().map(|(token, handler)| {
            step();
            (*token, handler)
        })
    }

    /// Takes all handlers out, in the order of a walk.
    pub fn clear(&mut self) -> Vec<(Token, H)> {
        self.positions.clear();
        std::mem::take(&mut self.entries)
    }

    /// Checks that every handler is found at its position. This looks at everything.
    ///
    /// # Panics
    /// If one is not: a fault of this crate.
    pub fn check(&self) {
        for position in 0..self.entries.len() {
            self.assert_position(position);
        }
        let present = self.positions.iter().filter(|position| **position != ABSENT);
        assert_eq!(
            present.count(),
            self.entries.len(),
            "a position is left of somebody who is gone"
        );
    }

    fn check_position(&self, position: usize) {
        if cfg!(debug_assertions) {
            self.assert_position(position);
        }
    }

    fn assert_position(&self, position: usize) {
        let token = self.entries[position].0;
        assert_eq!(
            self.position(token),
            Some(position),
            "{token:?} is looked for elsewhere"
        );
    }

    fn position_of_slot(&self, token: Token) -> Option<usize> {
        step();
        self.positions
            .get(token.index() as usize)
            .filter(|at| **at != ABSENT)
            .map(|at| *at as usize)
    }

    fn position(&self, token: Token) -> Option<usize> {
        self.position_of_slot(token)
            .filter(|position| self.entries[*position].0 == token)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::steps::tests::count;

    fn token(index: u32) -> Token {
        Token::new(index, 1)
    }

    #[test]
    fn a8_positions_stay_right_through_removals() {
        let mut set = HotSet::new();
        let tokens: Vec<Token> = (0..10).map(|index| token(index * 3)).collect();
        for (value, token) in tokens.iter().enumerate() {
            assert_eq!(set.insert(*token, value), None);
        }
        assert_eq!(set.remove(tokens[0]), Some(0));
        assert_eq!(set.remove(tokens[9]), Some(9));
        assert_eq!(set.remove(tokens[5]), Some(5));
        assert_eq!(set.remove(tokens[5]), None);
        set.check();
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
        assert_eq!(set.replace(new, "new"), None);
        assert_eq!(set.insert(new, "new"), Some("old"));
        assert!(!set.contains(old) && set.contains(new));
        assert_eq!(set.len(), 1);
        set.check();
    }

    #[test]
    fn r6_replacing_keeps_the_position() {
        let mut set = HotSet::new();
        for index in 0..3 {
            set.insert(token(index), index);
        }
        set.replace(token(1), 10);
        set.insert(token(0), 20);
        let order: Vec<u32> = set.iter().map(|(_, value)| *value).collect();
        assert_eq!(order, [20, 10, 2]);
    }

    #[test]
    fn a3_a_walk_that_removes_where_it_stands_sees_everybody_once() {
        let mut set = HotSet::new();
        for index in 0..50 {
            set.insert(token(index), index);
        }
        let (mut seen, mut position) = (Vec::new(), 0);
        while let Some((found, value)) = set.get(position) {
            seen.push(*value);
            if value % 3 == 0 {
                set.remove(found);
            } else {
                position += 1;
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert_eq!(set.len(), 33);
    }

    #[test]
    fn clearing_hands_everybody_out_and_the_set_is_usable_after() {
        let mut set = HotSet::new();
        for index in [5, 2, 9] {
            set.insert(token(index), index);
        }
        assert_eq!(set.clear(), [(token(5), 5), (token(2), 2), (token(9), 9)]);
        assert!(set.is_empty() && !set.contains(token(2)) && set.get(0).is_none());
        assert_eq!(set.insert(token(9), 1), None);
        set.check();
    }

    #[test]
    fn a8_joining_and_leaving_cost_the_same_in_a_large_set() {
        let cost = |others: u32| {
            let mut set = HotSet::new();
            for index in 0..others {
                set.insert(token(index), ());
            }
            let last = token(others);
            count(|| {
                set.insert(last, ());
                set.replace(last, ());
                set.remove(token(0));
                set.insert(token(0), ());
                assert!(set.contains(last));
                set.remove(last);
            })
        };
        assert_eq!(cost(10), cost(20_000));
    }

    #[test]
    fn a1_a_walk_costs_the_polled_ones_and_not_the_slots() {
        let mut set = HotSet::new();
        for index in [7, 500_000] {
            set.insert(token(index), ());
        }
        assert_eq!(count(|| set.iter().count()), 2);
    }

    #[test]
    fn a8_random_operations_agree_with_a_map() {
        let mut rng = crate::model_tests::rng();
        for _ in 0..500 {
            let mut set = HotSet::new();
            let mut model: BTreeMap<u32, (Token, u32)> = BTreeMap::new();
            for value in 0..60 {
                let token = Token::new(rng.u32(0..8), rng.u32(0..2));
                let known = model
                    .get(&token.index())
                    .filter(|(known, _)| *known == token)
                    .map(|(_, value)| *value);
                match rng.u32(0..4) {
                    0 | 1 => {
                        let former = model.insert(token.index(), (token, value));
                        assert_eq!(set.insert(token, value), former.map(|(_, value)| value));
                    }
                    2 => {
                        if known.is_some() {
                            model.remove(&token.index());
                        }
                        assert_eq!(set.remove(token), known);
                    }
                    _ => {
                        if known.is_some() {
                            model.insert(token.index(), (token, value));
                        }
                        assert_eq!(set.replace(token, value), known);
                    }
                }
                set.check();
                let mut all: Vec<_> = set.iter().map(|(token, value)| (token, *value)).collect();
                all.sort_unstable_by_key(|(token, _)| token.index());
                assert_eq!(all, model.values().copied().collect::<Vec<_>>());
            }
        }
    }
}
