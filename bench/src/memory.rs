//! P12: bytes per registered handler, timer and bottom half, counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aio_context::{ClockId, Context, Interest};

use crate::floor::doorbell;
use crate::ours::Silent;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator; counting changes nothing about it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are ours to the system.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MANY: usize = 4096;

/// Live bytes that each of `MANY` things adds.
fn each<T>(mut make: impl FnMut() -> T) -> usize {
    let mut kept = Vec::with_capacity(MANY);
    let before = LIVE.load(Ordering::Relaxed);
    for _ in 0..MANY {
        kept.push(make());
    }
    let after = LIVE.load(Ordering::Relaxed);
    // The handle itself lies in the array, which was there before.
    (after - before) / MANY + size_of::<T>()
}

pub(crate) fn print() {
    let Ok(cx) = Context::new() else { return };
    let Ok(bells) = crate::floor::doorbells(MANY as u64) else {
        return;
    };
    let mut bells = bells.into_iter();
    let handlers: Vec<_> = bells.by_ref().map(|bell| Rc::new(Silent(bell))).collect();
    let mut handlers = handlers.into_iter();
    let handler = each(|| {
        let handler = handlers
            .next()
            .or_else(|| doorbell().ok().map(|bell| Rc::new(Silent(bell))));
        handler.and_then(|handler| cx.watch(handler, Interest::READ).ok())
    });
    let timer = each(|| cx.timer(ClockId::Monotonic, |_, _| {}));
    let half = each(|| cx.bottom_half("a name", |_| {}));
    println!(
        "P12  bytes besides the user's own state: handler {handler} (goal 128), timer {timer} (64), bottom half {half} (96)"
    );
}
