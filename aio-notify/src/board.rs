//! [`Board`]: a bitmap of doorbells, one bit for each source, that a loop checks while it polls.
//!
//! It has no eventfd and calls no handler. While it is armed, a ring calls the `wake` of its caller, which wakes the loop.
//!
//! # State
//! | field | legend |
//! |---|---|
//! | a bit of `words` | this source was rung and its ring was not taken yet |
//! | `epoch`, even | disarmed: the loop checks the words before it arms the board; a ring need not wake it |
//! | `epoch`, odd | armed: a ring wakes the loop. Each arming has its own number |
//!
//! | epoch | a ring |
//! |---|---|
//! | even | sets the bit |
//! | odd | sets the bit, wakes, then makes the epoch even, so that the next rings need not wake; unless a later epoch has begun |
//!
//! # Why there are full fences
//! A ring writes a bit and then reads the epoch; a loop that arms the board writes the epoch and then reads
//! the bits. Without both fences, both may read the old value, as in [`Notifier`](crate::Notifier).
//!
//! # A thread that stops in the middle
//! A ring that stopped before it woke the loop delays no other ring: the epoch is still odd. If a ring
//! stopped between waking and changing the epoch, it changes the epoch only if it is still the same one, so
//! it ends no later arming.

use std::fmt;

use crate::sync::{AtomicU64, Ordering, faulty, fence};

const BITS: usize = u64::BITS as usize;

/// A bitmap of doorbells for one loop.
///
/// Any thread may [`ring`](Self::ring). All other functions are for the loop's home thread.
///
/// ```
/// use aio_notify::Board;
///
/// let board = Board::new(1000);
/// let mut woken = 0;
/// board.ring(700, || woken += 1);
/// board.ring(701, || woken += 1);
/// assert_eq!(woken, 1, "the first ring disarms the board");
/// assert_eq!(board.find(0), Some(700));
/// assert!(board.take(700) && !board.take(700));
/// assert_eq!(board.find(0), Some(701));
/// ```
pub struct Board {
    words: Box<[AtomicU64]>,
    sources: usize,
    epoch: AtomicU64,
}

impl Board {
    /// Makes an armed board for sources 0 to `sources` - 1, none of which was rung.
    #[must_use]
    pub fn new(sources: usize) -> Self {
        Self {
            words: (0..sources.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect(),
            sources,
            epoch: AtomicU64::new(1),
        }
    }

    /// Returns the number of sources.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources
    }

    /// Rings for a source. If the board is armed, calls `wake`, which must make the loop check the board.
    /// Publish the work before the ring. Lock-free, and without a system call of its own.
    ///
    /// `bit: on; epoch: odd -> the even one after it`
    ///
    /// Ordering: the bit releases the published work to `take`; the fence pairs with the one in `arm`.
    ///
    /// # Panics
    /// If there is no such source.
    #[inline]
    pub fn ring(&self, source: usize, wake: impl FnOnce()) {
        assert!(source < self.sources, "there are {} sources", self.sources);
        let order = faulty!(RingRelaxed, Ordering::Release, Ordering::Relaxed);
        self.words[source / BITS].fetch_or(1 << (source % BITS), order);
        faulty!(RingWithoutFence, fence(Ordering::SeqCst));
        let epoch = self.epoch.load(Ordering::Relaxed);
        if epoch % 2 == 1 {
            wake();
            self.end(epoch);
        }
    }

    /// Ends an armed epoch.
    fn end(&self, epoch: u64) {
        let next = epoch + 1;
        faulty!(EndAnyEpoch: return self.epoch.store(next, Ordering::Relaxed));
        // Another ring, or the loop itself, may have been first.
        let _ = self
            .epoch
            .compare_exchange(epoch, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Disarms the board: until the loop arms it again, the loop checks the board by itself, and rings do not
    /// wake it.
    ///
    /// `epoch: odd -> the even one after it`
    pub fn disarm(&self) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        if epoch % 2 == 1 {
            self.end(epoch);
        }
    }

    /// Arms the board: the next ring wakes the loop. After this and before sleeping, check the board once
    /// more for earlier rings. Arming an armed board begins another epoch, because a ring that has woken the
    /// loop may be about to end this one.
    ///
    /// `epoch: any -> the next odd one`
    ///
    /// Ordering: the fence pairs with the one in `ring`.
    pub fn arm(&self) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        if faulty!(EpochGoesOn, epoch % 2 == 1, false) {
            // Only the loop leaves an even epoch, so that it can store the next one.
            self.end(epoch);
            self.epoch.store(epoch + 2, Ordering::Relaxed);
        } else {
            self.epoch.store(epoch | 1, Ordering::Relaxed);
        }
        faulty!(ArmWithoutFence, fence(Ordering::SeqCst));
    }

    /// Returns the first source that was rung, from `from` on and then from the beginning.
    #[inline]
    #[must_use]
    pub fn find(&self, from: usize) -> Option<usize> {
        let from = if from < self.sources { from } else { 0 };
        let (word, bit) = (from / BITS, from % BITS);
        let rung = self.words.get(word)?.load(Ordering::Relaxed);
        let first = rung & (u64::MAX << bit);
        if first != 0 {
            return Some(source(word, first));
        }
        if self.words.len() == 1 {
            return (rung != 0).then(|| source(word, rung));
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
                // Only this thread takes bits, so bits that were set stay set.
                let place = stride.iter().position(|word| word.load(Ordering::Relaxed) != 0)?;
                let word = first + number * STRIDE + place;
                return Some(source(word, self.words[word].load(Ordering::Relaxed)));
            }
        }
        None
    }

    /// Takes the ring of a source, before the source is served. Returns `false` if it was not rung. A later
    /// ring is a new one.
    ///
    /// `bit: off`
    ///
    /// Ordering: acquires the work that was published before the ring.
    ///
    /// # Panics
    /// If there is no such source.
    #[inline]
    pub fn take(&self, source: usize) -> bool {
        let bit = 1 << (source % BITS);
        let order = faulty!(TakeRelaxed, Ordering::Acquire, Ordering::Relaxed);
        self.words[source / BITS].fetch_and(!bit, order) & bit != 0
    }
}

/// Returns the source of the lowest bit of a word that is not zero.
#[inline]
fn source(word: usize, bits: u64) -> usize {
    word * BITS + bits.trailing_zeros() as usize
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("sources", &self.sources)
            .field("epoch", &self.epoch.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
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
    fn only_the_first_ring_after_arming_wakes() {
        let board = Board::new(10);
        let woken = std::cell::Cell::new(0);
        let ring = |source| board.ring(source, || woken.set(woken.get() + 1));
        for (arms, expected) in [(false, 1), (true, 2), (true, 3)] {
            if arms {
                board.arm();
            }
            (0..10).for_each(ring);
            assert_eq!(woken.get(), expected);
        }
        board.arm();
        board.disarm();
        ring(1);
        board.disarm();
        ring(2);
        assert_eq!(woken.get(), 3, "a disarmed board wakes no loop");
        board.arm();
        board.arm();
        ring(3);
        assert_eq!(woken.get(), 4);
    }

    #[test]
    fn a_ring_that_was_stopped_does_not_end_a_later_epoch() {
        for disarms in [true, false] {
            let board = Board::new(2);
            let mut woken = 0;
            board.ring(0, || {
                // The loop wakes, checks, and arms the board again before this ring goes on.
                if disarms {
                    board.disarm();
                }
                board.arm();
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
