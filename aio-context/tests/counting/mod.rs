//! A counting allocator, for tests of the loop's promises about memory.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

/// The system's allocator, counted.
pub(crate) struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// The live bytes that the observed threads have allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) blocks: i64,
    pub(crate) bytes: i64,
}

static BLOCKS: AtomicI64 = AtomicI64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

thread_local! {
    /// The number of allocations of this thread. (These have no destructor, so they can be used at any time.)
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static OBSERVED: Cell<bool> = const { Cell::new(false) };
}

/// Returns the number of allocations and reallocations of this thread so far.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

/// Sets whether [`live`] counts the memory that this thread allocates and frees from now on. The threads of the test harness are not
/// counted.
pub(crate) fn observe_this_thread(observed: bool) {
    OBSERVED.set(observed);
}

/// Returns the live bytes. Exact only if observed threads free only memory that an observed thread has allocated.
pub(crate) fn live() -> Live {
    Live {
        blocks: BLOCKS.load(Ordering::SeqCst),
        bytes: BYTES.load(Ordering::SeqCst),
    }
}

fn count(blocks: i64, bytes: i64) {
    if OBSERVED.get() {
        BLOCKS.fetch_add(blocks, Ordering::Relaxed);
        BYTES.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn called() {
    CALLS.set(CALLS.get() + 1);
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("no block is that large")
}

// SAFETY: all arguments are passed to the system's allocator unchanged, and its results are returned unchanged. The counting
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        called();
        count(1, size(layout.size()));
        // SAFETY: the caller keeps the promises of `alloc`, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        called();
        count(1, size(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-1, -size(layout.size()));
        // SAFETY: `block` came from this allocator, so from the system's, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        called();
        count(0, size(new_size) - size(layout.size()));
        // SAFETY: as above; the caller keeps the promises about `new_size`.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
