//! Threads that begin together.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Scope, scope, yield_now};

/// The number of threads that work against the loop.
pub(crate) const CROWD: usize = 3;

/// Runs `work` on [`CROWD`] threads that begin at the same time, and `home` on this one. Ends when all have
/// ended.
pub(crate) fn against<R>(work: impl Fn(usize) + Sync, home: impl FnOnce() -> R) -> R {
    against_owners([(); CROWD], |number, ()| work(number), home)
}

/// Like [`against`]; each thread gets a part of its own.
pub(crate) fn against_owners<P: Send, R>(
    parts: [P; CROWD],
    work: impl Fn(usize, P) + Sync,
    home: impl FnOnce() -> R,
) -> R {
    let arrived = AtomicUsize::new(0);
    // Not the library's barrier: it is not instrumented, and it must not order anything here.
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
        // One by one, because the sanitizer detects the join of a thread, but not a scope's wait for all.
        for thread in crowd {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
        result
    })
}
