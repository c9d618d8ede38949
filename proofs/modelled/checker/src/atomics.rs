//! Loom's atomics, with loads that it does not overlook.
//!
//! For each atomic loom stores the thread that used it last, and tries all other operations that could have
//! come before. If a thread loads an atomic and then writes to it, it was the last one itself, so loom does
//! not try the loads of other threads again: of `load; compare_exchange` here and `load` there it tries one
//! order only (tokio-rs/loom, issues 166 and 392). So a load also notifies a condition variable on which no
//! thread waits: that orders no memory, and is tried in all orders.
//!
//! While a failed model is torn down, loom's atomics would panic once more. The operations that the libraries
//! call in a `Drop` then return a value for which nothing is freed, so the memory of a failed model leaks.

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
            /// Makes an atomic.
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self { value: atomic::$name::new(value), loads: Condvar::new() }
            }

            /// Loads the value, in all orders.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                if is_torn_down() {
                    return $last;
                }
                self.loads.notify_one();
                self.value.load(order)
            }

            /// Swaps the value.
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
    /// Subtracts from the value.
    #[track_caller]
    pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        if is_torn_down() {
            return u64::MAX;
        }
        self.value.fetch_sub(value, order)
    }

    /// Exchanges the value; may fail spuriously.
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
