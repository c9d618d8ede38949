//! What is always ready and therefore kept beside the set, served round robin.

use aio_backend::{Readiness, ReadyList, Token};

/// A dense list of what is always ready, and for what.
#[derive(Debug, Default)]
pub(crate) struct Side {
    ready: Vec<(Token, Readiness)>,
    /// Whose turn it is.
    next: usize,
}

impl Side {
    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Adds one and tells its place.
    pub(crate) fn push(&mut self, token: Token, readiness: Readiness) -> u32 {
        self.ready.push((token, readiness));
        self.ready.len() as u32 - 1
    }

    /// Changes what the one at `place` is ready for. One that is not open stays so.
    pub(crate) fn set(&mut self, place: u32, readiness: Readiness) {
        let (_, now) = &mut self.ready[place as usize];
        if *now != Readiness::NVAL {
            *now = readiness;
        }
    }

    /// Takes the one at `place` out, and tells which one took its place.
    pub(crate) fn swap_remove(&mut self, place: u32) -> Option<Token> {
        self.ready.swap_remove(place as usize);
        self.ready.get(place as usize).map(|&(token, _)| token)
    }

    /// Appends everybody, or as many as there is room for, from whose turn it is on.
    pub(crate) fn collect(&mut self, ready: &mut ReadyList) {
        if self.next >= self.ready.len() {
            self.next = 0;
        }
        let (before, after) = self.ready.split_at(self.next);
        for &(token, readiness) in after.iter().chain(before) {
            if !ready.push(token, readiness) {
                return;
            }
            self.next += 1;
            if self.next == self.ready.len() {
                self.next = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(side: &mut Side, limit: usize) -> Vec<u32> {
        let mut ready = ReadyList::with_limit(limit);
        side.collect(&mut ready);
        ready.iter().map(|(token, _)| token.index()).collect()
    }

    #[test]
    fn d2_the_always_ready_take_turns() {
        let mut side = Side::default();
        for index in 0..5 {
            assert_eq!(side.push(Token::new(index, 0), Readiness::IN), index);
        }
        assert_eq!(served(&mut side, 3), [0, 1, 2]);
        assert_eq!(served(&mut side, 3), [3, 4, 0]);
        assert_eq!(served(&mut side, 9), [1, 2, 3, 4, 0]);
        assert_eq!(side.swap_remove(1), Some(Token::new(4, 0)));
        assert_eq!(side.swap_remove(3), None);
        assert_eq!(served(&mut side, 2), [4, 2]);
        assert_eq!(served(&mut side, 2), [0, 4]);
    }

    #[test]
    fn r4_what_is_not_open_stays_so() {
        let mut side = Side::default();
        let place = side.push(Token::new(0, 0), Readiness::NVAL);
        side.set(place, Readiness::IN);
        let mut ready = ReadyList::new();
        side.collect(&mut ready);
        assert_eq!(ready.iter().next(), Some((Token::new(0, 0), Readiness::NVAL)));
    }
}
