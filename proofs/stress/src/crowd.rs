//! Threads that begin together.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Scope, scope, yield_now};

/// How many threads work against the loop.
pub(crate) const CROWD: usize = 3;

/// Runs `work` on [`CROWD`] threads that begin at the same time, and `home` on this one; ends when all have ended.
pub(crate) fn against<R>(work: impl Fn(usize) + Sync, home: impl FnOnce() -> R) -> R {
    against_owners([(); CROWD], |number, ()| work(number), home)
}

/// As [`against`]; each thread gets something of its own.
pub(crate) fn against_owners<P: Send, R>(
    parts: [P; CROWD],
    work: impl Fn(usize, P) + Sync,
    home: impl FnOnce() -> R,
) -> R {
    let arrived = AtomicUsize::new(0);
    // Not the library's barrier: it is not instrumented, and nothing should be ordered by it.
    let meet = || {
        arrived.fetch_add(1, Ordering::Relaxed);
        while arrived.load(Ordering::Relaxed) <= CROWD {
            yield_now();
        }
    };
    scope(|threads: &Scope<'_, '_>| {
        let (work, meet) = (&work, &meet);
        let begin = |(number, part)| {
            threads.spawn(move || {
                meet();
                work(number, part);
            })
        };
        let crowd: Vec<_> = parts.into_iter().enumerate().map(begin).collect();
        meet();
        let result = home();
        // One by one: the sanitizer sees how a thread is joined, but not how a scope waits for all.
        for thread in crowd {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
        result
    })
}
