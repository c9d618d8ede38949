//! The replacement of the standard library and the kernel under a model checker, and the faults that models
//! plant.
//!
//! Built for the checkers (`cfg(aio_modelled)`, which the build script of this workspace sets), each library
//! uses this crate in place of its module `sync`, which is the standard library. This crate has everything
//! that product code takes from `sync`: atomics, locks, threads, an eventfd, [`faulty!`].
//!
//! [loom](https://docs.rs/loom) tries every order, including weak memory, of a few steps.
//! [shuttle](https://docs.rs/shuttle) tries random orders of many steps, one after the other. A feature
//! chooses one.
//!
//! Values that no thread waits for and that affect nothing are not modelled: figures, flags of the home
//! thread alone, the number of a context. A checker would try all their orders in vain. The libraries always
//! take these from the standard library.
#![forbid(unsafe_code)]

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
compile_error!("choose a checker: --features loom, or --features shuttle");

#[cfg(feature = "loom")]
pub use loom as checker;
#[cfg(all(feature = "shuttle", not(feature = "loom")))]
pub use shuttle as checker;

#[cfg(feature = "loom")]
mod atomics;
#[cfg(feature = "loom")]
pub mod hooks;
pub mod kernel;
mod monitor;
pub mod planting;

pub use checker::sync::atomic::{AtomicU64 as Count, Ordering, fence};
pub use checker::sync::{Condvar, Mutex, MutexGuard};
pub use checker::thread;

#[cfg(feature = "loom")]
pub use atomics::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
pub use kernel::Eventfd;
#[cfg(not(feature = "loom"))]
pub use shuttle::{
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize},
    thread_local,
};

/// Like the checker's own macro, which does not support constant initial values.
#[cfg(feature = "loom")]
#[macro_export]
macro_rules! thread_local {
    ($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = const { $value:expr };) => {
        $crate::checker::thread_local! {
            $(#[$attribute])* $visibility static $name: $type = $value;
        }
    };
}

/// Expands to the code, or to the mistake beside it if that is planted.
///
/// - `faulty!(NAME, right, wrong)`: one of both.
/// - `faulty!(NAME, right)`: the mistake leaves it out.
/// - `faulty!(NAME, first; second)`: the mistake is the other order.
/// - `faulty!(NAME: more)`: the mistake does more.
#[macro_export]
macro_rules! faulty {
    ($fault:ident: $more:expr) => {
        if $crate::planting::is_planted(stringify!($fault)) {
            $more;
        }
    };
    ($fault:ident, $first:expr; $second:expr) => {
        if $crate::planting::is_planted(stringify!($fault)) {
            $second;
            $first;
        } else {
            $first;
            $second;
        }
    };
    ($fault:ident, $right:expr) => {
        if !$crate::planting::is_planted(stringify!($fault)) {
            $right;
        }
    };
    ($fault:ident, $right:expr, $wrong:expr) => {
        if $crate::planting::is_planted(stringify!($fault)) {
            $wrong
        } else {
            $right
        }
    };
}

/// Stores a flag that the home thread lowers by a swap.
///
/// For loom this is a read-modify-write. If a swap has read the value before a store, that store must come
/// after the swap. Loom does not enforce this: it would let the lowered flag be read after the fences of both
/// sides, a false alarm that no machine can produce.
pub fn raise(flag: &AtomicBool, order: Ordering) {
    #[cfg(not(feature = "loom"))]
    flag.store(true, order);
    #[cfg(feature = "loom")]
    flag.swap(true, order);
}

/// Stores a number that other threads change only by an exchange with the value that they have read.
///
/// For loom this is a read-modify-write, as in [`raise`]. Such an exchange comes right after the value that
/// it read, and so before this store. Loom does not enforce this: it would let the exchange's result be read
/// after this store.
pub fn overwrite(number: &AtomicU64, value: u64, order: Ordering) {
    #[cfg(not(feature = "loom"))]
    number.store(value, order);
    #[cfg(feature = "loom")]
    number.swap(value, order);
}

/// Returns the number of a core that no other thread is on, because the threads of a model run side by side.
pub fn core_here() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Reads a pointer for an exchange that fails unless the pointer still is the newest one.
///
/// For loom this is an exchange that always fails, and reads the newest pointer. Loom need not try the
/// consequences of an older one, because the following exchange fails, and returns the newest.
pub fn read_for_exchange<T>(pointer: &AtomicPtr<T>) -> *mut T {
    #[cfg(not(feature = "loom"))]
    return pointer.load(Ordering::Relaxed);
    #[cfg(feature = "loom")]
    {
        let none = std::ptr::without_provenance_mut(usize::MAX);
        let (Ok(latest) | Err(latest)) =
            pointer.compare_exchange(none, none, Ordering::Relaxed, Ordering::Relaxed);
        latest
    }
}

/// Returns `false`: the checkers cannot report whether a thread has ended.
pub fn has_ended<T>(_: &thread::JoinHandle<T>) -> bool {
    false
}

/// Returns `true` while a model is being torn down after a failure. Loom's atomics cannot be used any more
/// then.
fn is_torn_down() -> bool {
    cfg!(feature = "loom") && std::thread::panicking()
}
