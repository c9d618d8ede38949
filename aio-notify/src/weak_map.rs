//! [`WeakMap`]: values that a loop shares with other threads by name, while they are in use.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, Weak};

use crate::sync::Mutex;

/// A map that any thread reads and changes, and that does not keep its values alive: a value is in it until
/// its last [`Arc`] is dropped.
///
/// Dropped values take memory until there are twice as many entries as living values at the last clean-up.
/// There are therefore at most 16 entries, or two for each value that was alive at the same time. All
/// functions take a lock. They are for rare steps, such as listing the measured handlers, and not for an
/// iteration.
///
/// # Examples
/// ```
/// use aio_notify::WeakMap;
/// use std::sync::Arc;
///
/// let names = WeakMap::new();
/// let disk = Arc::new("disk");
/// names.insert(7, &disk);
/// assert_eq!(names.get(&7).as_deref(), Some(&"disk"));
/// drop(disk);
/// assert!(names.get(&7).is_none() && names.values().is_empty());
/// ```
#[derive(Debug)]
pub struct WeakMap<K, T>(Mutex<Entries<K, T>>);

#[derive(Debug)]
struct Entries<K, T> {
    values: BTreeMap<K, Weak<T>>,
    /// The size at which entries of dropped values are removed.
    prune_at: usize,
}

/// The number of entries up to which a map is not worth pruning.
const FEW: usize = 16;

impl<K: Ord, T> WeakMap<K, T> {
    /// Makes an empty map.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(Entries {
            values: BTreeMap::new(),
            prune_at: FEW,
        }))
    }

    /// Adds a value. It replaces the value with the same key, if there is one.
    pub fn insert(&self, key: K, value: &Arc<T>) {
        self.with(|entries| {
            if entries.values.len() >= entries.prune_at {
                entries.values.retain(|_, value| value.strong_count() != 0);
                entries.prune_at = FEW.max(2 * entries.values.len());
            }
            entries.values.insert(key, Arc::downgrade(value));
        });
    }

    /// Returns the value of a key, if it is still alive.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<Arc<T>> {
        self.with(|entries| entries.values.get(key).and_then(Weak::upgrade))
    }

    /// Returns the values that are still alive, in the order of their keys.
    #[must_use]
    pub fn values(&self) -> Vec<Arc<T>> {
        self.with(|entries| entries.values.values().filter_map(Weak::upgrade).collect())
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut Entries<K, T>) -> R) -> R {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Ord, T> Default for WeakMap<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m2_values_are_listed_by_key_while_they_live_and_the_last_one_of_a_key_counts() {
        let map = WeakMap::new();
        let [old, new, other] = ["old", "new", "other"].map(Arc::new);
        map.insert(2, &old);
        map.insert(1, &other);
        map.insert(2, &new);
        assert_eq!(map.values(), [other.clone(), new.clone()]);
        drop((old, other));
        assert_eq!((map.get(&1), map.get(&2)), (None, Some(new.clone())));
        assert_eq!(map.values(), [new]);
    }

    #[test]
    fn m2_values_that_are_gone_do_not_pile_up() {
        let map = WeakMap::new();
        let kept: Vec<_> = (0..40).map(Arc::new).collect();
        kept.iter().for_each(|one| map.insert(**one, one));
        for key in 100..10_100 {
            map.insert(key, &Arc::new(key));
            let entries = map.with(|entries| entries.values.len());
            assert!(entries <= 2 * (kept.len() + 1), "{entries}");
        }
        assert_eq!(map.values(), kept);
    }

    #[test]
    fn m2_threads_insert_and_list_at_the_same_time() {
        let map = WeakMap::new();
        let all = std::thread::scope(|scope| {
            let insert = |from: u32| {
                let map = &map;
                scope.spawn(move || {
                    let mine: Vec<_> = (from..from + 500).map(Arc::new).collect();
                    mine.iter().for_each(|one| map.insert(**one, one));
                    mine
                })
            };
            let threads = [insert(0), insert(500)];
            while threads.iter().any(|thread| !thread.is_finished()) {
                assert!(map.values().is_sorted());
            }
            threads.map(|thread| thread.join().unwrap()).concat()
        });
        assert_eq!(map.values(), all);
    }
}
