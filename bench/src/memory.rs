//! P10: allocations in an iteration. P12: bytes per registered handler, armed timer and bottom half. The
//! allocator counts both.

use std::alloc::{GlobalAlloc, Layout, System};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aio_context::{ClockId, Context, Interest, Wait};

use crate::load::ring;
use crate::ours::{Loop, Silent};
use crate::row::Row;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator; counting changes nothing about it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this function, which is that of the system's.
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

const MANY: usize = 4000;

/// Returns the live bytes that each of `MANY` objects adds.
fn each<T>(mut make: impl FnMut() -> T) -> usize {
    let mut kept = Vec::with_capacity(MANY);
    let before = LIVE.load(Ordering::Relaxed);
    for _ in 0..MANY {
        kept.push(make());
    }
    let after = LIVE.load(Ordering::Relaxed);
    // The handle itself is in the array, which existed before.
    (after - before) / MANY + size_of::<T>()
}

pub(crate) fn rows(wanted: &impl Fn(&str) -> bool) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if wanted("P10") {
        rows.push(allocations()?);
    }
    if wanted("P12") {
        rows.extend(bytes()?);
    }
    Ok(rows)
}

/// Counts the allocations in iterations with 64 events each, after the first few.
fn allocations() -> anyhow::Result<Row> {
    const EVENTS: u64 = 64;
    const ITERATIONS: usize = 1000;
    let ours = Loop::new(crate::load::doorbells(EVENTS)?)?;
    let turn = || {
        ours.bells.iter().for_each(|bell| ring(bell));
        ours.poll(Wait::Block);
    };
    // After these the backend has chosen its mode and allocated all its memory.
    (0..ITERATIONS).for_each(|_| turn());
    let before = CALLS.load(Ordering::Relaxed);
    (0..ITERATIONS).for_each(|_| turn());
    let calls = CALLS.load(Ordering::Relaxed) - before;
    let each = calls as f64 / ITERATIONS as f64;
    Ok(Row::counted("P10", "allocations", EVENTS, each, "per iteration"))
}

fn bytes() -> anyhow::Result<[Row; 3]> {
    let cx = Context::new()?;
    let mut handlers = crate::load::doorbells(MANY as u64)?
        .into_iter()
        .map(|bell| Rc::new(Silent(bell)))
        .collect::<Vec<_>>()
        .into_iter();
    let handler = each(|| handlers.next().map(|handler| cx.watch(handler, Interest::READ)));
    let timer = each(|| {
        let timer = cx.timer(ClockId::Monotonic, |_, _| {}).disarmed();
        timer.arm_after(Duration::from_secs(3600));
        timer
    });
    let half = each(|| cx.bottom_half("a name", |_| {}));
    let row = |workload, bytes: usize| Row::counted("P12", workload, MANY as u64, bytes as f64, "bytes");
    Ok([
        row("handler", handler),
        row("timer", timer),
        row("bottom half", half),
    ])
}
