//! [`HomeThread`]: identifies the thread to which a loop belongs.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::thread_local;

thread_local! {
    /// This thread's number, or 0 until it is first read.
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// The thread to which a value belongs.
///
/// Threads differ by their numbers, which no two threads of a process ever share, not even one after the other. Checking costs
/// one load.
///
/// ```
/// use aio_notify::HomeThread;
///
/// let home = HomeThread::here();
/// assert!(home.is_here());
/// let elsewhere = std::thread::spawn(move || home.is_here());
/// assert!(!elsewhere.join().expect("it does not panic"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeThread(u64);

impl HomeThread {
    /// Returns the calling thread.
    #[must_use]
    pub fn here() -> Self {
        static LATEST: AtomicU64 = AtomicU64::new(0);
        Self(THREAD.with(|number| {
            if number.get() == 0 {
                number.set(LATEST.fetch_add(1, Ordering::Relaxed) + 1);
            }
            number.get()
        }))
    }

    /// Returns whether this is the calling thread.
    #[inline]
    #[must_use]
    pub fn is_here(self) -> bool {
        THREAD.with(Cell::get) == self.0
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn d7_a_thread_is_at_home_only_where_it_is_and_its_number_is_not_inherited() {
        let here = HomeThread::here();
        assert!(here.is_here() && here == HomeThread::here());
        for _ in 0..100 {
            let there = thread::spawn(move || {
                assert!(!here.is_here());
                HomeThread::here()
            });
            let there = there.join().unwrap();
            assert!(!there.is_here() && there != here);
            thread::spawn(move || assert!(!there.is_here() && HomeThread::here() != there))
                .join()
                .unwrap();
        }
    }
}
