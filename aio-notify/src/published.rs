//! [`Published`]: a small value that other threads set and the home thread reads without a lock.

use std::sync::PoisonError;

use crate::sync::{AtomicU64, Mutex, Ordering, faulty};

/// A value of `N` words with a version. Any thread updates it; the home thread reads it again when the version has changed.
///
/// Reading takes no lock and an update no allocation. During an update, [`load`](Self::load) may return some
/// old words and some new ones, but never a new word after an old one: words are stored from the first to the
/// last, and loaded from the last to the first. No word is therefore older than the last one. The version
/// rises after an update. A loop that is [interrupted](crate::Mailbox::interrupt) after each update, and
/// loads the value again whenever the version differs, ends up with the new value.
///
/// # Examples
/// ```
/// use aio_notify::Published;
///
/// let limits = Published::new([1, 2]);
/// let seen = limits.version();
/// limits.update(|[low, high]| Some([low, high + 1])); // by any thread
/// assert_ne!(limits.version(), seen);
/// assert_eq!(limits.load(), [1, 3]);
/// ```
#[derive(Debug)]
pub struct Published<const N: usize> {
    words: [AtomicU64; N],
    version: AtomicU64,
    /// Held by a thread that updates the value. The home thread does not take it.
    updating: Mutex<()>,
}

impl<const N: usize> Published<N> {
    /// Makes a value of version 1.
    #[must_use]
    pub fn new(words: [u64; N]) -> Self {
        Self {
            words: words.map(AtomicU64::new),
            version: AtomicU64::new(1),
            updating: Mutex::new(()),
        }
    }

    /// Returns the version. A later [`load`](Self::load) returns words of this version or a newer one.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Returns the words.
    #[must_use]
    pub fn load(&self) -> [u64; N] {
        let mut loaded = [0; N];
        let both = self.words.iter().zip(&mut loaded);
        faulty!(
            LastWordLoadedLast,
            both.rev().for_each(load_word),
            both.for_each(load_word)
        );
        loaded
    }

    /// Passes the present words to `change`, stores its result unless that is `None`, and raises the version.
    /// Returns whether it has. Updates by several threads come one after the other; `change` must not update
    /// this value.
    pub fn update(&self, change: impl FnOnce([u64; N]) -> Option<[u64; N]>) -> bool {
        let _one_at_a_time = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(words) = change(self.load()) else {
            return false;
        };
        faulty!(VersionBeforeParams, self.store(words); self.version.fetch_add(1, Ordering::Release));
        true
    }

    fn store(&self, words: [u64; N]) {
        for (word, value) in self.words.iter().zip(words) {
            word.store(value, Ordering::Release);
        }
    }
}

fn load_word((word, to): (&AtomicU64, &mut u64)) {
    *to = word.load(Ordering::Acquire);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a6_an_update_raises_the_version_and_a_refused_one_does_not() {
        let value = Published::new([1, 2, 3]);
        assert!(value.update(|words| Some(words.map(|word| word * 10))));
        assert_eq!((value.version(), value.load()), (2, [10, 20, 30]));
        assert!(!value.update(|_| None));
        assert_eq!((value.version(), value.load()), (2, [10, 20, 30]));
    }

    #[test]
    fn a6_the_last_word_is_never_newer_than_another() {
        let value = Published::new([0; 3]);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 1..=20_000 {
                    value.update(|_| Some([number; 3]));
                }
            });
            while !writer.is_finished() {
                let words = value.load();
                assert!(words.is_sorted_by(|one, next| one >= next), "{words:?}");
            }
        });
    }

    #[test]
    fn a6_updates_of_several_threads_are_none_lost() {
        let value = Published::new([0; 4]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        value.update(|words| Some(words.map(|word| word + 1)));
                    }
                });
            }
        });
        assert_eq!((value.version(), value.load()), (4001, [4000; 4]));
    }
}
