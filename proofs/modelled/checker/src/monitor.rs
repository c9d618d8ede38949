//! [`Monitor`]: a value that all threads of a model may read and change, one at a time, and a wait for a
//! change of it.
//!
//! For shuttle it is a mutex and a condition variable. Each use of these has several steps, and loom would
//! try all orders of them. So for loom one read-modify-write is the step, and the rest is invisible to the
//! checker: all its threads are one thread of the system, and switch in steps only.

#[cfg(not(feature = "loom"))]
pub(crate) use of_a_lock::Monitor;
#[cfg(feature = "loom")]
pub(crate) use of_one_step::Monitor;

#[cfg(feature = "loom")]
mod of_one_step {
    use std::mem;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread::{self, Thread};

    /// See the [module](self).
    #[derive(Debug)]
    pub(crate) struct Monitor<T> {
        /// The number of steps. They are ordered like the uses of a lock.
        steps: AtomicU32,
        kept: Mutex<Kept<T>>,
    }

    #[derive(Debug)]
    struct Kept<T> {
        value: T,
        waiting: Vec<Thread>,
    }

    impl<T> Monitor<T> {
        pub(crate) fn new(value: T) -> Self {
            Self {
                steps: AtomicU32::new(0),
                kept: Mutex::new(Kept {
                    value,
                    waiting: Vec::new(),
                }),
            }
        }

        /// Uses the value, and wakes no thread.
        pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            f(&mut self.step().value)
        }

        /// Changes the value, and wakes the threads that wait.
        pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
            let mut kept = self.step();
            let result = change(&mut kept.value);
            // Each of these threads sleeps: there is no step between joining the list and going to sleep.
            mem::take(&mut kept.waiting).iter().for_each(Thread::unpark);
            result
        }

        /// Checks the value now and after every change, until `is_ready` returns `true`.
        pub(crate) fn wait(&self, mut is_ready: impl FnMut(&T) -> bool) {
            loop {
                let mut kept = self.step();
                if is_ready(&kept.value) {
                    return;
                }
                kept.waiting.push(thread::current());
                drop(kept);
                thread::park();
            }
        }

        fn step(&self) -> MutexGuard<'_, Kept<T>> {
            self.steps.fetch_add(1, Ordering::AcqRel);
            self.kept.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(not(feature = "loom"))]
mod of_a_lock {
    use std::sync::PoisonError;

    use shuttle::sync::{Condvar, Mutex, MutexGuard};

    /// See the [module](self).
    #[derive(Debug)]
    pub(crate) struct Monitor<T> {
        value: Mutex<T>,
        changed: Condvar,
    }

    impl<T> Monitor<T> {
        pub(crate) fn new(value: T) -> Self {
            Self {
                value: Mutex::new(value),
                changed: Condvar::new(),
            }
        }

        /// Uses the value, and wakes no thread.
        pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            f(&mut self.lock())
        }

        /// Changes the value, and wakes the threads that wait.
        pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
            let result = change(&mut self.lock());
            self.changed.notify_all();
            result
        }

        /// Checks the value now and after every change, until `is_ready` returns `true`.
        pub(crate) fn wait(&self, mut is_ready: impl FnMut(&T) -> bool) {
            let mut value = self.lock();
            while !is_ready(&value) {
                value = self.changed.wait(value).unwrap_or_else(PoisonError::into_inner);
            }
        }

        fn lock(&self) -> MutexGuard<'_, T> {
            self.value.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
