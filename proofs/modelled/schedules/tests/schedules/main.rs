//! Threads and a loop, in orders that shuttle chooses. Each scenario makes its checks at its end. For all of
//! them the harness checks that no thread sleeps for ever, and that no descriptor is left.
//!
//! Threads communicate through the checker's atomics, each use of which is a step of its own. Records for the
//! checks are in plain atomics, without a step: all threads of a scenario are one thread of the system.
#![allow(clippy::unwrap_used, reason = "a scenario fails by panicking")]

mod boards;
mod channels;
mod clocks;
mod deferred;
mod endings;
mod handlers;
mod storms;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use aio_context::{Context, Remote, Wait};
use shuttle::thread::{self, JoinHandle};

/// A number for the checks.
#[derive(Clone, Debug, Default)]
struct Recorded(Arc<AtomicU32>);

impl Recorded {
    fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
    }

    fn add(&self, more: u32) {
        self.0.fetch_add(more, Relaxed);
    }
}

fn recorded<const N: usize>() -> [Recorded; N] {
    std::array::from_fn(|_| Recorded::default())
}

/// Threads of a scenario.
struct Crowd {
    remote: Remote,
    /// The number of threads that have announced their end.
    ended: Recorded,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn of(cx: &Context) -> Self {
        Self {
            remote: cx.remote(),
            ended: Recorded::default(),
            threads: Vec::new(),
        }
    }

    fn add(&mut self, work: impl FnOnce(&Remote) + Send + 'static) {
        let remote = self.remote.clone();
        self.threads.push(thread::spawn(move || work(&remote)));
    }

    /// Adds a thread that announces its end to the loop. The announcement wakes a loop that has missed an earlier wake-up, so only
    /// threads that need the loop until then use it.
    fn add_announcing(&mut self, work: impl FnOnce(&Remote) + Send + 'static) {
        let ended = self.ended.clone();
        self.add(move |remote| {
            work(remote);
            remote.run(move |_| ended.add(1)).unwrap();
        });
    }

    /// Polls until `count` threads have announced their end.
    fn serve(&self, cx: &Context, count: u32) {
        while self.ended.get() < count {
            cx.poll(Wait::Block).unwrap();
        }
    }

    /// Waits until all threads have ended, and polls until there is nothing left to do.
    fn end(self, cx: &Context) {
        self.join();
        while cx.poll(Wait::NoBlock).unwrap() {}
    }

    fn join(self) {
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// The outcomes of a scenario over all orders. A scenario with only one outcome proves nothing.
struct Outcomes([AtomicU32; 2]);

impl Outcomes {
    const fn none() -> Self {
        Self([AtomicU32::new(0), AtomicU32::new(0)])
    }

    fn record(&self, success: bool) {
        self.0[usize::from(success)].fetch_add(1, Relaxed);
    }

    fn are_both_there(&self) -> bool {
        self.0.iter().all(|count| count.load(Relaxed) > 0)
    }
}

/// Makes a test of each scenario, some of which must have both outcomes.
macro_rules! scenarios {
    ($($name:ident => $scenario:ident $(with $outcomes:ident)?;)*) => {
        $(#[test] fn $name() {
            let many = aio_schedules::check($scenario);
            $(assert!(!many || $outcomes.are_both_there(), "there was one outcome only");)?
            let _ = many;
        })*
    };
}
use scenarios;

/// Makes a test of each fault that a scenario must find.
macro_rules! faults {
    ($($name:ident: $fault:ident in $($scenario:ident)*;)*) => {
        $(#[test] fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            let scenarios: &[fn()] = &[$(|| _ = aio_schedules::check($scenario)),*];
            aio_checker::planting::must_be_found(path, stringify!($fault), scenarios);
        })*
    };
}
use faults;
