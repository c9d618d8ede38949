//! Faults on purpose. If a sanitizer does not report these, its silence about the rest is no evidence.

use std::hint::black_box;

use crate::crowd::against;

static mut SHARED: u64 = 0;

fn count() {
    for _ in 0..1000 {
        // SAFETY: none, and that is the purpose: this runs only on request, and the sanitizer must report the race.
        unsafe {
            SHARED = black_box(SHARED) + 1;
        }
    }
}

/// Increments one number from several threads.
pub(crate) fn race() {
    against(|_| count(), count);
}

/// Reads freed memory.
pub(crate) fn use_after_free() {
    let freed = Box::into_raw(Box::new(7u64));
    // SAFETY: `freed` is a box turned into a pointer, once.
    drop(unsafe { Box::from_raw(freed) });
    // SAFETY: none, and that is the purpose: this runs only on request, and the sanitizer must report the fault.
    println!("{}", unsafe { black_box(freed).read_volatile() });
}

/// Leaks memory.
pub(crate) fn leak() {
    for _ in 0..8 {
        std::mem::forget(black_box(vec![1u8; 512]));
    }
}

/// Leaves a descriptor open.
pub(crate) fn descriptor() -> std::io::Result<()> {
    std::mem::forget(std::io::pipe()?);
    Ok(())
}
