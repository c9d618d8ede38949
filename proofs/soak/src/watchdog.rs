//! A run that stands still has lost a wake-up: says so and ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::Duration;

/// No round takes anything like so long.
const STANDSTILL: Duration = Duration::from_secs(30);

/// Ends the process unless it is told of progress; dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watchdog {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(crate) fn start(seed: u64) -> Self {
        let rounds = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (rounds.clone(), stop.clone());
        let watch = move || {
            let mut last = u64::MAX;
            loop {
                let now = seen.load(Ordering::Relaxed);
                if now == last && !stopped.load(Ordering::Acquire) {
                    println!(
                        "BAD: nothing has happened for {} s in round {now}: a wake-up was lost (AIO_SEED={seed})",
                        STANDSTILL.as_secs()
                    );
                    std::process::exit(1);
                }
                last = now;
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                park_timeout(STANDSTILL);
            }
        };
        Self {
            rounds,
            stop,
            thread: Some(spawn(watch)),
        }
    }

    pub(crate) fn progress(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only prints and sleeps; there is nothing to say about its end.
            let _ = thread.join();
        }
    }
}
