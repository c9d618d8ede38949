//! The scheme of QEMU's bottom halves, which are no library: flags that a thread sets, a list to which it
//! then pushes, a notification that is elided behind a fence, and a run in the order of the list, the latest
//! first.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};

use crate::case::{Run, timed};

const QUEUED: u32 = 1;
const SCHEDULED: u32 = 2;

struct Half {
    flags: AtomicU32,
    /// The number of the next bottom half plus one, or 0.
    next: AtomicUsize,
    run: Box<dyn Fn()>,
}

struct Scheme {
    halves: Vec<Half>,
    /// The number of the latest bottom half in the list plus one, or 0.
    head: AtomicUsize,
    notified: AtomicBool,
    notify_me: AtomicU32,
}

impl Scheme {
    fn schedule(&self, number: usize) {
        let half = &self.halves[number];
        let before = half.flags.fetch_or(QUEUED | SCHEDULED, Ordering::AcqRel);
        if before & QUEUED == 0 {
            let mut head = self.head.load(Ordering::Relaxed);
            loop {
                half.next.store(head, Ordering::Relaxed);
                match self
                    .head
                    .compare_exchange_weak(head, number + 1, Ordering::Release, Ordering::Relaxed)
                {
                    Ok(_) => break,
                    Err(now) => head = now,
                }
            }
        }
        self.notified.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        assert_eq!(self.notify_me.load(Ordering::Relaxed), 0, "it is awake");
    }

    fn poll(&self) {
        self.notified.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut rest = self.head.swap(0, Ordering::AcqRel);
        while rest != 0 {
            let half = &self.halves[rest - 1];
            rest = half.next.load(Ordering::Relaxed);
            let before = half.flags.fetch_and(!(QUEUED | SCHEDULED), Ordering::AcqRel);
            if before & SCHEDULED != 0 {
                (half.run)();
            }
        }
    }
}

/// A batch of bottom halves that count, without an event loop around them.
pub(super) fn batch(batch: u64) -> anyhow::Result<Run> {
    let count = Rc::new(Cell::new(0u64));
    let half = |_| {
        let count = count.clone();
        Half {
            flags: AtomicU32::new(0),
            next: AtomicUsize::new(0),
            run: Box::new(move || count.set(count.get() + 1)),
        }
    };
    let scheme = Scheme {
        halves: (0..batch).map(half).collect(),
        head: AtomicUsize::new(0),
        notified: AtomicBool::new(false),
        notify_me: AtomicU32::new(0),
    };
    Ok(Box::new(move |times| {
        let before = count.get();
        let took = timed(times, || {
            for number in 0..scheme.halves.len() {
                scheme.schedule(number);
            }
            scheme.poll();
        });
        assert_eq!(count.get() - before, times * batch);
        took
    }))
}
