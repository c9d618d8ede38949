//! Invariant 3: once its memory has grown to the need of a case, a set allocates nothing: in rounds, when poll mode is entered
//! and left, while hits are served, and when sources are demoted, promoted, suspended and resumed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use aio_backend::Token;
use aio_pollset::{PollSet, Source};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// The number of allocations of this thread. (It has no destructor, so it can be used at any time.)
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all arguments are passed to the system's allocator unchanged, and its results are returned unchanged. The counting
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller keeps the promises of `alloc`, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from this allocator, so from the system's, with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[derive(Default)]
struct Queue(Cell<bool>);

impl Source for Queue {
    fn poll(&self) -> bool {
        self.0.get()
    }
}

const SOURCES: usize = 200;

/// All actions of a loop: rounds, hits, a nested round, a demotion, a suspension, and leaving and entering poll mode.
fn day(set: &PollSet, queues: &[Rc<Queue>], hits: &mut Vec<Token>) {
    set.enter();
    for busy in [0, 3, 77] {
        queues[busy].0.set(true);
        for _ in 0..9 {
            assert!(set.round(|token| take(hits, token)));
            for token in hits.drain(..) {
                let nested = || assert!(!set.round(|_| ControlFlow::Continue(())));
                set.serve(token, nested).unwrap();
            }
        }
        queues[busy].0.set(false);
    }
    let all = |_: Token| true;
    set.demote_idle(20, all, |_, idle| idle, |_| ControlFlow::Continue(()));
    assert!(set.promoted() < SOURCES);
    for index in 0..SOURCES as u32 {
        let token = Token::new(index, 0);
        set.promote(token);
        drop(set.exclude(token));
        set.suspend(token).finish(|| ());
        set.resume(token);
    }
    queues.iter().for_each(|queue| queue.0.set(true));
    assert!(set.exit(|token| take(hits, token)));
    queues.iter().for_each(|queue| queue.0.set(false));
    for token in hits.drain(..) {
        set.serve(token, || ()).unwrap();
    }
    assert!(!set.exit(|token| take(hits, token)));
}

fn take(hits: &mut Vec<Token>, token: Token) -> ControlFlow<()> {
    hits.push(token);
    ControlFlow::Continue(())
}

#[test]
fn a_set_in_use_allocates_nothing() {
    let (set, mut hits) = (PollSet::new(), Vec::new());
    let queues: Vec<_> = (0..SOURCES).map(|_| Rc::new(Queue::default())).collect();
    for (index, queue) in (0..).zip(&queues) {
        assert!(!set.join(Token::new(index, 0), queue.clone()).is_owed());
    }
    for _ in 0..3 {
        day(&set, &queues, &mut hits);
    }
    let before = CALLS.get();
    for _ in 0..20 {
        day(&set, &queues, &mut hits);
    }
    assert_eq!(CALLS.get() - before, 0);
}
