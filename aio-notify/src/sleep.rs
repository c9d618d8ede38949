//! [`measure_sleep`]: the cost of a sleep on this machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::{EventNotifier, thread_cpu_time};

const SLEEPS: u32 = 128;
/// Processor time is read after so many sleeps: a reading costs a system call.
const BATCH: u32 = 8;
/// How long the waker lets the sleeper sleep: long enough to be asleep, short enough to be a short sleep.
const NAP: Duration = Duration::from_micros(60);
/// Give up after that: a machine so busy cannot be measured.
const LONGEST: Duration = Duration::from_millis(80);
/// Writes of an eventfd that no thread waits for.
const IDLE_WRITES: u32 = 32;

/// The cost of a short sleep that another thread ends: see [`measure_sleep`].
///
/// # Examples
/// ```
/// use aio_notify::measure_sleep;
///
/// if let Some(cost) = measure_sleep()? {
///     let break_even = cost.latency + cost.cpu;
///     assert!(!break_even.is_zero());
///     assert!(cost.latency <= cost.slow_latency);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SleepCost {
    /// The time from the write of the eventfd until the sleeper runs: the mean of the quicker half.
    pub latency: Duration,
    /// The time that nine of ten sleepers run after. Much more than [`latency`](Self::latency), it tells of other load on the machine.
    pub slow_latency: Duration,
    /// The processor time that one sleep takes.
    pub cpu: Duration,
    /// The time that the waker is busy with the write, more than with one that wakes no thread.
    pub kick: Duration,
}

/// Measures the cost of short sleeps that another thread ends by an eventfd. Takes about 15 ms, at most 80.
///
/// The calling thread sleeps, so the cost is that of the core on which it runs. The waker runs on another core, if it may. Other load on
/// the machine prolongs some of the sleeps; those are left out.
///
/// Returns `None` if the machine is too busy to be measured in that time.
///
/// # Errors
/// What the system says to an eventfd and a thread.
pub fn measure_sleep() -> io::Result<Option<SleepCost>> {
    let shared = Arc::new(Shared {
        bell: EventNotifier::new()?,
        turn: AtomicU32::new(0),
        rung_at: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        began: Instant::now(),
    });
    let sleeper = sched_getcpu();
    let waker = std::thread::Builder::new().name("wake-cost".to_owned()).spawn({
        let shared = shared.clone();
        move || shared.wake(sleeper)
    })?;
    let slept = shared.sleep();
    shared.is_over.store(true, Ordering::Release);
    // It cannot panic; without its figures a kick costs nothing.
    let kicks = waker.join().unwrap_or_default();
    let (latencies, cpu) = slept?;
    if latencies.len() < SLEEPS as usize / 4 {
        return Ok(None);
    }
    let latencies = sorted(latencies);
    let idle_write = mean_of_quicker_half(&sorted(idle_writes()?));
    Ok(Some(SleepCost {
        latency: mean_of_quicker_half(&latencies),
        slow_latency: Duration::from_nanos(latencies[latencies.len() * 9 / 10]),
        cpu: mean_of_quicker_half(&sorted(cpu)),
        kick: mean_of_quicker_half(&sorted(kicks)).saturating_sub(idle_write),
    }))
}

/// What the sleeper and the waker share.
struct Shared {
    bell: EventNotifier,
    /// The number of the sleep that begins.
    turn: AtomicU32,
    /// When the eventfd was written last, in nanoseconds.
    rung_at: AtomicU64,
    is_over: AtomicBool,
    began: Instant,
}

impl Shared {
    /// Sleeps. Returns the latency of each, and the processor time of one in each batch, in nanoseconds.
    fn sleep(&self) -> io::Result<(Vec<u64>, Vec<u64>)> {
        let mut latencies = Vec::with_capacity(SLEEPS as usize);
        let mut cpu = Vec::with_capacity((SLEEPS / BATCH) as usize);
        let mut before = thread_cpu_time();
        for number in 1..=SLEEPS {
            if self.began.elapsed() > LONGEST {
                break;
            }
            self.turn.store(number, Ordering::Release);
            poll(&mut [PollFd::new(&self.bell, PollFlags::IN)], None)?;
            let woken = self.now_ns();
            self.bell.test_and_clear()?;
            latencies.push(woken.saturating_sub(self.rung_at.load(Ordering::Acquire)));
            if number.is_multiple_of(BATCH) {
                let now = thread_cpu_time();
                cpu.push(now.saturating_sub(before).as_nanos() as u64 / u64::from(BATCH));
                before = now;
            }
        }
        Ok((latencies, cpu))
    }

    /// Wakes the sleeper some time after each of its turns has begun. Returns how long each write took, in nanoseconds.
    fn wake(&self, sleeper: usize) -> Vec<u64> {
        leave_core(sleeper);
        let mut kicks = Vec::with_capacity(SLEEPS as usize);
        let mut last = 0;
        while !self.is_over.load(Ordering::Acquire) {
            let now = self.turn.load(Ordering::Acquire);
            if now == last {
                std::thread::yield_now();
                continue;
            }
            last = now;
            let asleep = Instant::now();
            while asleep.elapsed() < NAP {
                std::hint::spin_loop();
            }
            let rung_at = self.now_ns();
            self.rung_at.store(rung_at, Ordering::Release);
            // An eventfd that is open can be written.
            let _ = self.bell.set();
            kicks.push(self.now_ns().saturating_sub(rung_at));
        }
        kicks
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

/// How long writes take that wake no thread, in nanoseconds.
fn idle_writes() -> io::Result<Vec<u64>> {
    let bell = EventNotifier::new()?;
    let mut times = Vec::with_capacity(IDLE_WRITES as usize);
    for _ in 0..IDLE_WRITES {
        let began = Instant::now();
        bell.set()?;
        times.push(began.elapsed().as_nanos() as u64);
    }
    Ok(times)
}

fn sorted(mut nanos: Vec<u64>) -> Vec<u64> {
    nanos.sort_unstable();
    nanos
}

/// The mean of the quicker half of sorted times: load on the machine prolongs the others. Zero without any.
fn mean_of_quicker_half(nanos: &[u64]) -> Duration {
    let half = &nanos[..nanos.len().div_ceil(2)];
    Duration::from_nanos(half.iter().sum::<u64>() / half.len().max(1) as u64)
}

/// Moves this thread to another core than that one, if it may. A loop that is bound to a core is woken from other cores, which takes
/// longer than from the same one, where a new thread might begin.
fn leave_core(core: usize) {
    let mut others = CpuSet::new();
    (0..CpuSet::MAX_CPU)
        .filter(|other| *other != core)
        .for_each(|other| others.set(other));
    // Where there is no other core, it stays.
    let _ = sched_setaffinity(None, &others);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a12_a_measurement_is_plausible_and_ends() {
        let cost = measure_sleep().expect("there are descriptors left");
        assert!(
            cost.is_none_or(|cost| {
                let longest = Duration::from_secs(1);
                cost.latency <= cost.slow_latency && cost.latency < longest && cost.kick < longest
            }),
            "{cost:?}"
        );
    }

    #[test]
    fn a12_slow_sleeps_do_not_count() {
        let mut nanos = vec![1000, 1200, 1100, 1300];
        assert_eq!(
            mean_of_quicker_half(&sorted(nanos.clone())),
            Duration::from_nanos(1050)
        );
        nanos.extend([80_000_000; 3]);
        assert_eq!(mean_of_quicker_half(&sorted(nanos)), Duration::from_nanos(1150));
        assert_eq!(mean_of_quicker_half(&[]), Duration::ZERO);
    }
}
