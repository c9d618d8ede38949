//! Detects a run without progress, which has lost a wake-up: prints a message and ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::Duration;

/// The time without progress after which a run counts as hung. A round is much shorter.
const STANDSTILL: Duration = Duration::from_secs(30);

/// Ends the process if there is no progress. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watchdog {
    run: Arc<Run>,
    thread: Option<JoinHandle<()>>,
}

/// The state of the run.
#[derive(Debug, Default)]
struct Run {
    rounds: AtomicU64,
    /// The number of rests begun and ended: odd while no progress is due.
    rests: AtomicU64,
    is_over: AtomicBool,
}

impl Run {
    /// Returns `true` if there was no progress since the previous check. A rest in between starts a new
    /// interval.
    fn stands_still(&self, last: &mut Option<(u64, u64)>) -> bool {
        let now = (
            self.rounds.load(Ordering::Relaxed),
            self.rests.load(Ordering::Relaxed),
        );
        last.replace(now) == Some(now) && now.1.is_multiple_of(2)
    }

    fn rest<R>(&self, code: impl FnOnce() -> R) -> R {
        self.rests.fetch_add(1, Ordering::Relaxed);
        let result = code();
        self.rests.fetch_add(1, Ordering::Relaxed);
        result
    }
}

impl Watchdog {
    pub(crate) fn start(seed: u64) -> Self {
        let run = Arc::new(Run::default());
        let watched = run.clone();
        let watch = move || {
            let mut last = None;
            while !watched.is_over.load(Ordering::Acquire) {
                if watched.stands_still(&mut last) {
                    println!(
                        "BAD: nothing has happened for {} s in round {}: a wake-up was lost (AIO_SEED={seed})",
                        STANDSTILL.as_secs(),
                        watched.rounds.load(Ordering::Relaxed)
                    );
                    std::process::exit(1);
                }
                park_timeout(STANDSTILL);
            }
        };
        Self {
            run,
            thread: Some(spawn(watch)),
        }
    }

    pub(crate) fn progress(&self) {
        self.run.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs `code`, during which no progress is due.
    pub(crate) fn rest<R>(&self, code: impl FnOnce() -> R) -> R {
        self.run.rest(code)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.run.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only prints and sleeps, so its result is ignored.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_progress_stands_still_unless_it_rests() {
        let (run, mut last) = (Run::default(), None);
        assert!(!run.stands_still(&mut last), "it has just begun");
        run.rounds.fetch_add(1, Ordering::Relaxed);
        assert!(!run.stands_still(&mut last));
        assert!(run.stands_still(&mut last));
        run.rest(|| {
            for _ in 0..3 {
                assert!(!run.stands_still(&mut last), "it rests");
            }
        });
        assert!(!run.stands_still(&mut last), "it has just gone on");
        assert!(run.stands_still(&mut last));
    }
}
