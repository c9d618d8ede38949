//! What the libraries have under a model checker instead of the standard library and the kernel, and the faults that models plant.
//!
//! Built for the checkers (`cfg(aio_modelled)`, which the build script of this workspace sets), each library uses this crate in
//! the place of its module `sync`, which is the standard library. Everything that product code takes from `sync` is here:
//! atomics, locks, threads, an eventfd, [`faulty!`].
//!
//! [loom](https://docs.rs/loom) tries every order, weak memory included, of a few steps; [shuttle](https://docs.rs/shuttle) tries
//! random orders of many, one step after the other. A feature chooses one.
//!
//! Not modelled is what no thread waits for and nothing follows from: figures, flags of the home thread alone, the number of a
//! context. A checker would try all their orders for nothing; the libraries take these from the standard library in any case.
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

/// As the checker's own, which does not know initial values that are constant.
#[cfg(feature = "loom")]
#[macro_export]
macro_rules! thread_local {
    ($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = const { $value:expr };) => {
        $crate::checker::thread_local! {
            $(#[$attribute])* $visibility static $name: $type = $value;
        }
    };
}

/// The code, or the mistake beside it if that is planted.
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
/// For loom this is a read-modify-write. Loom does not see that a swap which has read the value before a store leaves no room for
/// that store but after it, and would let the lowered flag be read after the fences of both sides: an alarm that no machine can
/// give.
pub fn raise(flag: &AtomicBool, order: Ordering) {
    #[cfg(not(feature = "loom"))]
    flag.store(true, order);
    #[cfg(feature = "loom")]
    flag.swap(true, order);
}

/// Stores a number that other threads change only by an exchange with what they have read.
///
/// For loom this is a read-modify-write, as in [`raise`]: loom does not see that such an exchange comes right after what was
/// read, and so before this store, and would let its result be read after it.
pub fn overwrite(number: &AtomicU64, value: u64, order: Ordering) {
    #[cfg(not(feature = "loom"))]
    number.store(value, order);
    #[cfg(feature = "loom")]
    number.swap(value, order);
}

/// The number of a core that no other thread is on: the threads of a model run side by side.
pub fn core_here() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Reads a pointer for an exchange that fails unless it still is the newest one.
///
/// For loom this is an exchange that always fails, and reads the newest one. Loom need not try what an older one leads to: the
/// exchange that follows fails, and returns the newest.
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

/// Whether a thread has ended: the checkers do not know, which counts as no.
pub fn has_ended<T>(_: &thread::JoinHandle<T>) -> bool {
    false
}

/// Whether a model is being torn down after a failure. Loom's atomics cannot be used any more then.
fn is_torn_down() -> bool {
    cfg!(feature = "loom") && std::thread::panicking()
}
