//! [`Board`]: many doorbells in a bitmap, one bit each, which a loop looks over while it polls.
//!
//! It wakes nobody by itself and calls nobody: whoever rings is told when the loop rests, and wakes it.
//!
//! # State
//! | field | legend |
//! |---|---|
//! | a bit of `words` | this source was rung and has not been taken |
//! | `turn`, even | the loop attends: it looks at the words before it rests; nobody need wake it |
//! | `turn`, odd | the loop rests: whoever rings wakes it. Each rest has a number of its own |
//!
//! | turn | a ring |
//! |---|---|
//! | even | sets the bit |
//! | odd | sets the bit, wakes, then makes the turn even, so that the next ones need not wake; unless a later turn has begun |
//!
//! # Why there are full fences
//! A ring writes a bit and then reads the turn; a loop that rests writes the turn and then reads the bits. As in
//! [`Notifier`](crate::Notifier), both fences are needed, or both may read the old value.
//!
//! # A thread that stops in the middle
//! A ring that stopped before it woke the loop makes nobody else late: the turn is still odd. One that stopped between waking
//! and changing the turn changes it only if it is still the same turn, so that no later rest is ended by it.

use std::fmt;

use crate::sync::{AtomicU64, Fault, Ordering, fence, planted, weakened};

const BITS: usize = u64::BITS as usize;

/// A bitmap of doorbells for one loop.
///
/// Any thread may [`ring`](Self::ring). Everything else is the loop's: its home thread calls it.
///
/// ```
/// use aio_notify::Board;
///
/// let board = Board::new(1000);
/// let mut woken = 0;
/// board.ring(700, || woken += 1);
/// board.ring(701, || woken += 1);
/// assert_eq!(woken, 1);
/// assert_eq!(board.find(0), Some(700));
/// assert!(board.take(700) && !board.take(700));
/// assert_eq!(board.find(0), Some(701));
/// ```
pub struct Board {
    words: Box<[AtomicU64]>,
    sources: usize,
    turn: AtomicU64,
}

impl Board {
    /// A board for sources 0 to `sources` - 1, none of which was rung, of a loop that rests.
    #[must_use]
    pub fn new(sources: usize) -> Self {
        Self {
            words: (0..sources.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect(),
            sources,
            turn: AtomicU64::new(1),
        }
    }

    /// How many sources there are.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources
    }

    /// Rings for a source; calls `wake` if the loop may be resting, which then looks at the board. Publish what there is
    /// before the ring. Lock-free, and without a system call of its own.
    ///
    /// `bit: on; turn: odd -> the even one after it`
    ///
    /// Ordering: the bit releases what was published to `take`; the fence pairs with the one in `rest`.
    ///
    /// # Panics
    /// If there is no such source.
    #[inline]
    pub fn ring(&self, source: usize, wake: impl FnOnce()) {
        assert!(source < self.sources, "there are {} sources", self.sources);
        let order = weakened(Fault::RingRelaxed, Ordering::Release);
        self.words[source / BITS].fetch_or(1 << (source % BITS), order);
        if !planted(Fault::RingWithoutFence) {
            fence(Ordering::SeqCst);
        }
        let turn = self.turn.load(Ordering::Relaxed);
        if turn % 2 == 1 {
            wake();
            self.end_rest(turn);
        }
    }

    fn end_rest(&self, turn: u64) {
        let next = turn + 1;
        if planted(Fault::EndAnyRest) {
            self.turn.store(next, Ordering::Relaxed);
            return;
        }
        // Another ring, or the loop itself, may have been first.
        let _ = self
            .turn
            .compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The loop will look at the board by itself until it rests: rings need not wake it.
    ///
    /// `turn: odd -> the even one after it`
    pub fn attend(&self) {
        let turn = self.turn.load(Ordering::Relaxed);
        if turn % 2 == 1 {
            self.end_rest(turn);
        }
    }

    /// Rings wake the loop from now on. What was rung before is found by looking once more, after this and before sleeping.
    /// A loop that rests already begins another rest, because a ring that has woken it may be about to end this one.
    ///
    /// `turn: any -> the next odd one`
    ///
    /// Ordering: the fence pairs with the one in `ring`.
    pub fn rest(&self) {
        let turn = self.turn.load(Ordering::Relaxed);
        if turn % 2 == 1 && !planted(Fault::RestGoesOn) {
            // Only the loop leaves an even turn, so that it can store the next one.
            self.end_rest(turn);
            self.turn.store(turn + 2, Ordering::Relaxed);
        } else {
            self.turn.store(turn | 1, Ordering::Relaxed);
        }
        if !planted(Fault::RestWithoutFence) {
            fence(Ordering::SeqCst);
        }
    }

    /// The first source that was rung, from `from` on and then from the beginning.
    #[inline]
    #[must_use]
    pub fn find(&self, from: usize) -> Option<usize> {
        let from = if from < self.sources { from } else { 0 };
        let (word, bit) = (from / BITS, from % BITS);
        let first = self.words.get(word)?.load(Ordering::Relaxed) & (u64::MAX << bit);
        if first != 0 {
            return Some(source(word, first));
        }
        self.find_in(word + 1, self.words.len())
            .or_else(|| self.find_in(0, word + usize::from(bit != 0)))
    }

    #[inline]
    fn find_in(&self, first: usize, end: usize) -> Option<usize> {
        const STRIDE: usize = 8;
        let words = self.words.get(first..end)?;
        for (number, stride) in words.chunks(STRIDE).enumerate() {
            let rung = stride
                .iter()
                .fold(0, |rung, word| rung | word.load(Ordering::Relaxed));
            if rung != 0 {
                // Bits are only taken by this thread: what was there is there.
                let place = stride.iter().position(|word| word.load(Ordering::Relaxed) != 0)?;
                let word = first + number * STRIDE + place;
                return Some(source(word, self.words[word].load(Ordering::Relaxed)));
            }
        }
        None
    }

    /// Takes one ring back in, before the source is served; false if it was not rung. A ring after this is a new one.
    ///
    /// `bit: off`
    ///
    /// Ordering: acquires what was published before the ring.
    ///
    /// # Panics
    /// If there is no such source.
    #[inline]
    pub fn take(&self, source: usize) -> bool {
        let bit = 1 << (source % BITS);
        let order = weakened(Fault::TakeRelaxed, Ordering::Acquire);
        self.words[source / BITS].fetch_and(!bit, order) & bit != 0
    }
}

/// The source of the lowest bit of a word that is not zero.
#[inline]
fn source(word: usize, bits: u64) -> usize {
    word * BITS + bits.trailing_zeros() as usize
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("sources", &self.sources)
            .field("turn", &self.turn.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn all(board: &Board, from: usize) -> Vec<usize> {
        let (mut found, mut next) = (Vec::new(), from);
        while let Some(source) = board.find(next) {
            assert!(board.take(source) && !board.take(source));
            found.push(source);
            next = source;
        }
        found
    }

    #[test]
    fn every_source_is_found_from_anywhere() {
        for sources in [1, 63, 64, 65, 700, 10_000] {
            let board = Board::new(sources);
            assert_eq!(board.find(0), None);
            for source in (0..sources).step_by(7).chain([sources - 1]) {
                for from in [
                    0,
                    source,
                    source.saturating_sub(1),
                    source + 1,
                    sources - 1,
                    sources,
                    99_999,
                ] {
                    board.ring(source, || {});
                    assert_eq!(board.find(from), Some(source), "of {sources}, from {from}");
                    board.take(source);
                    assert_eq!(board.find(from), None);
                }
            }
        }
        assert_eq!(Board::new(0).find(0), None);
    }

    #[test]
    fn a_search_goes_round() {
        let board = Board::new(1000);
        for source in [3, 64, 65, 640, 999] {
            board.ring(source, || {});
        }
        assert_eq!(all(&board, 65), [65, 640, 999, 3, 64]);
        assert_eq!(all(&board, 0), []);
    }

    #[test]
    fn sources_in_the_same_place_of_several_words_do_not_hide_each_other() {
        let (board, rung) = (Board::new(1000), [64 + 3, 128 + 3, 512 + 3, 576 + 3, 960 + 3]);
        for source in rung {
            board.ring(source, || {});
        }
        assert_eq!(all(&board, 0), rung);
    }

    #[test]
    fn a_board_has_as_many_sources_as_were_asked_for() {
        for sources in [0, 1, 64, 65, 1000] {
            assert_eq!(Board::new(sources).sources(), sources);
        }
    }

    #[test]
    fn only_the_first_ring_of_a_rest_wakes() {
        let board = Board::new(10);
        let woken = std::cell::Cell::new(0);
        let ring = |source| board.ring(source, || woken.set(woken.get() + 1));
        for (rest, expected) in [(false, 1), (true, 2), (true, 3)] {
            if rest {
                board.rest();
            }
            (0..10).for_each(ring);
            assert_eq!(woken.get(), expected);
        }
        board.rest();
        board.attend();
        ring(1);
        board.attend();
        ring(2);
        assert_eq!(woken.get(), 3, "a loop that attends need not be woken");
        board.rest();
        board.rest();
        ring(3);
        assert_eq!(woken.get(), 4);
    }

    #[test]
    fn a_ring_that_was_stopped_does_not_end_a_later_rest() {
        for attends in [true, false] {
            let board = Board::new(2);
            let mut woken = 0;
            board.ring(0, || {
                // The loop wakes, looks, and rests again before this ring goes on.
                if attends {
                    board.attend();
                }
                board.rest();
                board.take(0);
            });
            board.ring(1, || woken += 1);
            assert_eq!(woken, 1);
        }
    }

    #[test]
    #[should_panic(expected = "there are 64 sources")]
    fn there_are_no_other_sources() {
        Board::new(64).ring(64, || {});
    }
}
