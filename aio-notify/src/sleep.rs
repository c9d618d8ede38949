//! [`measure_sleep`]: the cost of a sleep on this machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::EventNotifier;

const SLEEPS: u32 = 48;
/// How long the waker lets the sleeper sleep: long enough to be asleep, short enough to be a short sleep.
const NAP: Duration = Duration::from_micros(60);
/// Give up after that: a machine so busy cannot be measured.
const LONGEST: Duration = Duration::from_millis(80);

/// The cost of a short sleep that another thread ends: see [`measure_sleep`].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use aio_notify::{SleepCost, measure_sleep};
///
/// // Without a measurement, because the machine is too busy, usual figures.
/// let usual = SleepCost { latency: Duration::from_micros(8), cpu: Duration::from_micros(2) };
/// let cost = measure_sleep()?.unwrap_or(usual);
/// let break_even = cost.latency + cost.cpu;
/// assert!(!break_even.is_zero());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SleepCost {
    /// The median time from the write of the eventfd until the sleeper runs.
    pub latency: Duration,
    /// The processor time that one sleep takes.
    pub cpu: Duration,
}

/// Measures the cost of short sleeps that another thread ends by an eventfd. Takes about 10 ms, at most 80.
///
/// Returns `None` if the machine is too busy to be measured in that time.
///
/// # Errors
/// What the system says to an eventfd and a thread.
pub fn measure_sleep() -> io::Result<Option<SleepCost>> {
    let bell = Arc::new(EventNotifier::new()?);
    let (began, turn) = (Instant::now(), Arc::new(AtomicU32::new(0)));
    let rung_at = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let waker = std::thread::Builder::new().name("wake-cost".to_owned()).spawn({
        let (bell, turn, rung_at, over) = (bell.clone(), turn.clone(), rung_at.clone(), over.clone());
        let sleeper = sched_getcpu();
        move || wake(sleeper, &bell, &turn, &rung_at, &over, began)
    })?;
    let mut latencies = Vec::with_capacity(SLEEPS as usize);
    let cpu_before = cpu_time();
    for number in 1..=SLEEPS {
        if began.elapsed() > LONGEST {
            break;
        }
        turn.store(number, Ordering::Release);
        poll(&mut [PollFd::new(&*bell, PollFlags::IN)], None)?;
        let woken = began.elapsed().as_nanos() as u64;
        bell.test_and_clear()?;
        latencies.push(woken.saturating_sub(rung_at.load(Ordering::Acquire)));
    }
    let cpu = cpu_time().saturating_sub(cpu_before);
    over.store(true, Ordering::Release);
    // It returns nothing, and cannot panic.
    let _ = waker.join();
    if latencies.len() < SLEEPS as usize / 4 {
        return Ok(None);
    }
    let sleeps = latencies.len() as u32;
    latencies.sort_unstable();
    let latency = Duration::from_nanos(latencies[latencies.len() / 2]);
    let cpu = cpu / sleeps;
    Ok(Some(SleepCost { latency, cpu }))
}

/// Wakes the sleeper some time after each of its turns has begun.
fn wake(
    sleeper: usize,
    bell: &EventNotifier,
    turn: &AtomicU32,
    rung_at: &AtomicU64,
    over: &AtomicBool,
    began: Instant,
) {
    leave_core(sleeper);
    let mut last = 0;
    while !over.load(Ordering::Acquire) {
        let now = turn.load(Ordering::Acquire);
        if now == last {
            std::thread::yield_now();
            continue;
        }
        last = now;
        let asleep = Instant::now();
        while asleep.elapsed() < NAP {
            std::hint::spin_loop();
        }
        rung_at.store(began.elapsed().as_nanos() as u64, Ordering::Release);
        // An eventfd that is open can be written.
        let _ = bell.set();
    }
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

/// How long this thread has run.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a12_a_measurement_is_plausible_and_ends() {
        let cost = measure_sleep().expect("there are descriptors left");
        assert!(
            cost.is_none_or(|cost| cost.latency < Duration::from_secs(1)),
            "{cost:?}"
        );
    }
}
