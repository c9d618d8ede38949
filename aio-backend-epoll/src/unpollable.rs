//! The files that epoll refuses because they are always ready, reported round robin.

use aio_backend::{Interest, Readiness, ReadyList, Token};

use crate::entries::State;

/// A dense list of files that are always ready, with their readiness.
#[derive(Debug, Default)]
pub(crate) struct Unpollable {
    ready: Vec<(Token, Readiness)>,
    /// The position of the next file to report.
    next: usize,
}

impl Unpollable {
    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Adds a file and returns its position.
    pub(crate) fn push(&mut self, token: Token, readiness: Readiness) -> u32 {
        self.ready.push((token, readiness));
        self.ready.len() as u32 - 1
    }

    /// Changes the readiness of the file at `place`. A number that is not open stays `NVAL`.
    pub(crate) fn set(&mut self, place: u32, readiness: Readiness) {
        let (_, now) = &mut self.ready[place as usize];
        if *now != Readiness::NVAL {
            *now = readiness;
        }
    }

    /// Removes the file at `place`, and returns the token of the file that moved there.
    pub(crate) fn swap_remove(&mut self, place: u32) -> Option<Token> {
        self.ready.swap_remove(place as usize);
        self.ready.get(place as usize).map(|&(token, _)| token)
    }

    /// Appends all files, or as many as there is room for, starting with the next one to report.
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

/// Returns the readiness of a descriptor that is always ready. It never has [`Readiness::PRI`].
pub(crate) fn always(interest: Interest) -> Readiness {
    let mut readiness = Readiness::empty();
    readiness.set(Readiness::IN, interest.contains(Interest::READ));
    readiness.set(Readiness::OUT, interest.contains(Interest::WRITE));
    readiness
}

/// Adds a file to the unpollable ones, unless it has nothing to report.
#[cold]
pub(crate) fn enlist(unpollable: &mut Unpollable, token: Token, readiness: Readiness) -> State {
    if readiness.is_empty() {
        State::Silent
    } else {
        State::Unpollable(unpollable.push(token, readiness))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(unpollable: &mut Unpollable, limit: usize) -> Vec<u32> {
        let mut ready = ReadyList::with_limit(limit);
        unpollable.collect(&mut ready);
        ready.iter().map(|(token, _)| token.index()).collect()
    }

    #[test]
    fn d2_files_that_are_always_ready_are_reported_in_turn() {
        let mut unpollable = Unpollable::default();
        for index in 0..5 {
            assert_eq!(unpollable.push(Token::new(index, 0), Readiness::IN), index);
        }
        assert_eq!(served(&mut unpollable, 3), [0, 1, 2]);
        assert_eq!(served(&mut unpollable, 3), [3, 4, 0]);
        assert_eq!(served(&mut unpollable, 9), [1, 2, 3, 4, 0]);
        assert_eq!(unpollable.swap_remove(1), Some(Token::new(4, 0)));
        assert_eq!(unpollable.swap_remove(3), None);
        assert_eq!(served(&mut unpollable, 2), [4, 2]);
        assert_eq!(served(&mut unpollable, 2), [0, 4]);
    }

    #[test]
    fn r4_a_number_that_is_not_open_stays_so() {
        let mut unpollable = Unpollable::default();
        let place = unpollable.push(Token::new(0, 0), Readiness::NVAL);
        unpollable.set(place, Readiness::IN);
        let mut ready = ReadyList::new();
        unpollable.collect(&mut ready);
        assert_eq!(ready.iter().next(), Some((Token::new(0, 0), Readiness::NVAL)));
    }
}
