//! Loom's atomics, with loads that it does not overlook.
//!
//! Of each atomic loom keeps in mind who used it last, and tries whatever else that could have come before. A thread that loads
//! an atomic before it writes to it was the last one itself, and what other threads have loaded is not tried again: of
//! `load; compare_exchange` here and `load` there it knows one order only (tokio-rs/loom, issues 166 and 392). So a load also
//! rings a condition variable on which nobody waits: that orders no memory, and is tried in all orders.

use std::ops::Deref;

use loom::sync::Condvar;
use loom::sync::atomic::{self, Ordering};

macro_rules! atomics {
    ($($name:ident$(<$of:ident>)?: $value:ty;)*) => { $(
        #[derive(Debug)]
        pub struct $name$(<$of>)? {
            value: atomic::$name$(<$of>)?,
            loads: Condvar,
        }

        impl$(<$of>)? $name$(<$of>)? {
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self { value: atomic::$name::new(value), loads: Condvar::new() }
            }

            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                self.loads.notify_one();
                self.value.load(order)
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
    AtomicBool: bool;
    AtomicPtr<T>: *mut T;
    AtomicU32: u32;
    AtomicU64: u64;
    AtomicUsize: usize;
}
