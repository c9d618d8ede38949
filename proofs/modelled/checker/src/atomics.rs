//! Loom's atomics, with loads that it does not overlook.
//!
//! Of each atomic loom remembers the thread that used it last, and tries whatever else could have come before. A thread that loads
//! an atomic before it writes to it was the last one itself, and what other threads have loaded is not tried again: of
//! `load; compare_exchange` here and `load` there it knows one order only (tokio-rs/loom, issues 166 and 392). So a load also
//! notifies a condition variable on which no thread waits: that orders no memory, and is tried in all orders.
//!
//! While a failed model is torn down, loom's atomics would panic once more. What the libraries call in a `Drop` then returns a value
//! for which nothing is freed: what a failed model holds is left.

use std::ops::Deref;
use std::ptr;

use loom::sync::Condvar;
use loom::sync::atomic::{self, Ordering};

use crate::is_torn_down;

macro_rules! atomics {
    ($($name:ident$(<$of:ident>)?: $value:ty, torn down $last:expr;)*) => { $(
        /// An atomic.
        #[derive(Debug)]
        pub struct $name$(<$of>)? {
            value: atomic::$name$(<$of>)?,
            loads: Condvar,
        }

        impl$(<$of>)? $name$(<$of>)? {
            /// Makes one.
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self { value: atomic::$name::new(value), loads: Condvar::new() }
            }

            /// Loads it, in all orders.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                if is_torn_down() {
                    return $last;
                }
                self.loads.notify_one();
                self.value.load(order)
            }

            /// Swaps it.
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                if is_torn_down() {
                    return $last;
                }
                self.value.swap(value, order)
            }
        }

        impl$(<$of>)? Deref for $name$(<$of>)? {
            type Target = atomic::$name$(<$of>)?;

            fn deref(&self) -> &Self::Target {
                &self.value
            }
        }
    )* };
}

atomics! {
    AtomicBool: bool, torn down false;
    AtomicPtr<T>: *mut T, torn down ptr::null_mut();
    AtomicU32: u32, torn down u32::MAX;
    AtomicU64: u64, torn down u64::MAX;
    AtomicUsize: usize, torn down usize::MAX;
}

impl AtomicU64 {
    /// Subtracts.
    #[track_caller]
    pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        if is_torn_down() {
            return u64::MAX;
        }
        self.value.fetch_sub(value, order)
    }

    /// Exchanges it, or fails though it need not.
    ///
    /// # Errors
    /// The value that it has instead.
    #[track_caller]
    pub fn compare_exchange_weak(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if is_torn_down() {
            return Ok(current);
        }
        self.value.compare_exchange_weak(current, new, success, failure)
    }
}
