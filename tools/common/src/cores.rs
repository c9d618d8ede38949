//! The choice of cores, one for the client and one for the server, and the cost of a cache line between them.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two cores, so that client and server do not disturb each other.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The core of the measuring thread.
    pub client: usize,
    /// The core of the servers.
    pub server: usize,
}

impl Cores {
    /// Returns the first and the last core that this process may use; `None` if there is only one.
    pub fn pick() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let client = cores.next()?;
        let server = cores.next_back()?;
        Some(Self { client, server })
    }

    /// Measures the time that a cache line takes from one core to the other and back. Returns the median of
    /// many short batches, so an interrupted batch has no influence. Takes some milliseconds.
    pub fn line_round_trip(self) -> Duration {
        let line = Line(AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pin(self.server);
                answer(&line.0);
            });
            let asked = scope.spawn(|| {
                pin(self.client);
                ask(&line.0)
            });
            // Propagates a panic of that thread.
            asked
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

const BATCHES: usize = 101;
const ROUND_TRIPS: u32 = 1000;
/// The number that ends the other thread.
const STOP: u32 = u32::MAX;

/// A cache line of its own, together with its neighbour: processors fetch both.
#[repr(align(128))]
struct Line(AtomicU32);

/// Replaces each odd number by the next even one, until it reads [`STOP`].
fn answer(line: &AtomicU32) {
    loop {
        match line.load(Ordering::Acquire) {
            STOP => return,
            asked if asked % 2 == 1 => line.store(asked + 1, Ordering::Release),
            _ => std::hint::spin_loop(),
        }
    }
}

fn ask(line: &AtomicU32) -> Duration {
    let mut number = 0;
    let mut round_trip = || {
        line.store(number + 1, Ordering::Release);
        number += 2;
        while line.load(Ordering::Acquire) != number {
            std::hint::spin_loop();
        }
    };
    // The first round trip waits until the other thread has started.
    round_trip();
    let mut batches: Vec<Duration> = (0..BATCHES)
        .map(|_| {
            let began = Instant::now();
            (0..ROUND_TRIPS).for_each(|_| round_trip());
            began.elapsed() / ROUND_TRIPS
        })
        .collect();
    line.store(STOP, Ordering::Release);
    batches.sort_unstable();
    batches[BATCHES / 2]
}

/// Starts a server on its core, in a process group of its own. Ctrl-C then signals only this program, which
/// stops the server.
///
/// # Errors
/// If the server cannot be started.
pub fn spawn(command: &mut Command, at: Option<Cores>) -> io::Result<Child> {
    command.process_group(0);
    let Some(cores) = at else {
        return command.spawn();
    };
    pin(cores.server);
    let child = command.spawn();
    pin(cores.client);
    child
}

/// Binds the calling thread to a core. Threads and processes that it starts later inherit the binding.
pub fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = sched_setaffinity(None, &set) {
        eprintln!("cannot bind to core {core}: {error}; figures will spread more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_there_and_back() {
        let Some(cores) = Cores::pick() else {
            println!("skipped: there is only one core");
            return;
        };
        let before = sched_getaffinity(None).unwrap();
        assert!(cores.line_round_trip() > Duration::ZERO);
        // The calling thread is not bound.
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
