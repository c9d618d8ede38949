//! Measuring what a sleep costs on this machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aio_notify::EventNotifier;
use aio_pollctl::WakeCost;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

const SLEEPS: u32 = 48;
/// How long the waker lets the sleeper sleep: long enough to be asleep, short enough to be a short sleep.
const NAP: Duration = Duration::from_micros(60);
/// Give up after that: a machine so busy cannot be measured.
const LONGEST: Duration = Duration::from_millis(80);

/// Measures what it costs to sleep for a moment and to be woken by another thread, for
/// [`PollParams::with_measured_wake`](aio_pollctl::PollParams::with_measured_wake). Takes about 10 ms, at most 80.
///
/// A machine that is too busy to be measured in that time is taken for a [typical](WakeCost::ASSUMED) one.
///
/// # Errors
/// What the system says to an eventfd and a thread.
pub fn measure_wake_cost() -> io::Result<WakeCost> {
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
    // It has nothing to say, and cannot panic.
    let _ = waker.join();
    if latencies.len() < SLEEPS as usize / 4 {
        return Ok(WakeCost::ASSUMED);
    }
    let sleeps = latencies.len() as u32;
    latencies.sort_unstable();
    let latency = Duration::from_nanos(latencies[latencies.len() / 2]);
    Ok(WakeCost {
        latency,
        cpu: cpu / sleeps,
    })
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

/// Moves this thread to any other core than that one, if it may: who wakes a loop that is bound to a core runs elsewhere,
/// and is slower at it than a neighbour on the same core, whom a new thread would be.
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
    fn a_measurement_is_plausible_and_short() {
        let began = Instant::now();
        let cost = measure_wake_cost().expect("there are descriptors left");
        assert!(!cost.is_unknown());
        assert!(cost.latency < Duration::from_secs(1), "{cost:?}");
        // Not a bound on speed: it must not go on for ever.
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
