//! The resources of a process: memory, descriptors, time.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Figures of this process at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    /// Bytes in memory.
    pub(crate) resident: u64,
    /// The number of open descriptors.
    pub(crate) descriptors: usize,
    /// The processor time of all threads.
    pub(crate) processor: Duration,
    /// The time.
    pub(crate) now: Instant,
}

impl Gauges {
    pub(crate) fn read() -> anyhow::Result<Self> {
        let memory = fs::read_to_string("/proc/self/statm").context("/proc/self/statm")?;
        let pages: u64 = memory
            .split_whitespace()
            .nth(1)
            .and_then(|pages| pages.parse().ok())
            .context("/proc/self/statm has no second figure")?;
        Ok(Self {
            resident: pages * rustix::param::page_size() as u64,
            // The count includes the directory that is being read, each time.
            descriptors: fs::read_dir("/proc/self/fd").context("/proc/self/fd")?.count(),
            processor: duration(clock_gettime(ClockId::ProcessCPUTime)),
            now: Instant::now(),
        })
    }
}

/// Measures the time of a small fixed work. The cost of an event is compared with it, because the speed of
/// the machine depends on its other users.
#[derive(Debug)]
pub(crate) struct Yardstick(OwnedFd);

impl Yardstick {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC)?))
    }

    /// Returns the processor time of a write and a read, the least of some tries.
    pub(crate) fn measure(&self) -> anyhow::Result<Duration> {
        const ROUNDS: u32 = 100;
        let mut least = Duration::MAX;
        for _ in 0..10 {
            let began = clock_gettime(ClockId::ThreadCPUTime);
            for _ in 0..ROUNDS {
                rustix::io::write(&self.0, &1u64.to_ne_bytes())?;
                rustix::io::read(&self.0, &mut [0u8; 8])?;
            }
            let ended = clock_gettime(ClockId::ThreadCPUTime);
            let took = duration(ended).saturating_sub(duration(began));
            least = least.min(took / ROUNDS);
        }
        Ok(least)
    }
}

fn duration(time: Timespec) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Keeps the processor busy until this thread has used `time` of processor time.
pub(crate) fn burn(time: Duration) {
    let now = || duration(clock_gettime(ClockId::ThreadCPUTime));
    let until = now() + time;
    while now() < until {}
}
