//! [`SleepMeter`]: the cost of a sleep on this machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{EventNotifier, thread_cpu_time};

/// The number of sleeps in a batch.
const SLEEPS: u32 = 16;
/// The time that the waker lets the sleeper sleep: long enough to fall asleep, short enough for a short
/// sleep.
const NAP: Duration = Duration::from_micros(60);
/// The time after which a batch is given up: the core is busy with other work.
const LONGEST: Duration = Duration::from_millis(5);
/// The number of writes of an eventfd for which no thread waits.
const IDLE_WRITES: u32 = 32;

/// The cost of a short sleep that another thread ends: see [`SleepMeter`].
///
/// # Examples
/// ```
/// use aio_notify::SleepMeter;
///
/// if let Some(cost) = SleepMeter::new().measure()? {
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
    /// The 90th percentile of that time. If it is much more than [`latency`](Self::latency), there is other load
    /// on the machine.
    pub slow_latency: Duration,
    /// The processor time that one sleep takes.
    pub cpu: Duration,
    /// The time that a write keeps the waker busy, beyond that of a write that wakes no thread.
    pub kick: Duration,
    /// The time for a write that wakes no thread.
    pub idle_write: Duration,
}

/// Measures the cost of short sleeps that another thread ends by an eventfd: 16 at a time, about a millisecond.
///
/// The batches take turns on the cores that the thread that made the meter may use. The waker runs on another
/// core, if there is one. Both are threads of the meter, so the calling thread keeps its core. They are bound
/// to their cores, because a sleeper that moves to the core of its waker would wake up in a third of the
/// time.
///
/// Other load on a core raises the cost of a whole batch. Judge by several batches, some time apart, and by
/// the cheaper ones.
///
/// # Examples
/// ```
/// use aio_notify::SleepMeter;
///
/// let mut meter = SleepMeter::new();
/// let mut latencies = Vec::new();
/// for _ in 0..8 {
///     latencies.extend(meter.measure()?.map(|cost| cost.latency));
/// }
/// latencies.sort();
/// println!("{:?}", latencies.first());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SleepMeter {
    /// Not empty.
    cores: Vec<usize>,
    next: usize,
}

impl Default for SleepMeter {
    fn default() -> Self {
        Self::new()
    }
}

impl SleepMeter {
    /// Makes a meter for the cores that the calling thread may use now.
    #[must_use]
    pub fn new() -> Self {
        let here = sched_getcpu();
        let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let is_allowed = |core: &usize| allowed.is_set(*core);
        // Beginning with the present core, which need not be the first.
        let mut cores: Vec<usize> = (here..CpuSet::MAX_CPU)
            .chain(0..here)
            .filter(is_allowed)
            .collect();
        if cores.is_empty() {
            cores.push(here);
        }
        Self { cores, next: 0 }
    }

    /// Measures 16 sleeps on the next core, while the waker runs on its own. Takes 1 to 5 ms.
    ///
    /// Returns `None` if the core is too busy to be measured in that time.
    ///
    /// # Errors
    /// The error of the system for an eventfd or for one of two threads.
    pub fn measure(&mut self) -> io::Result<Option<SleepCost>> {
        self.measure_with(Waker::Runs)
    }

    /// As [`measure`](Self::measure), but the waker sleeps, too: the sleeper wakes it before it falls asleep.
    /// On a processor that then falls idle, a wake-up takes several times as long. [`SleepCost::cpu`]
    /// includes the sleeper's write.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    ///
    /// # Examples
    /// ```
    /// use aio_notify::SleepMeter;
    ///
    /// let mut meter = SleepMeter::new();
    /// if let (Some(alone), Some(both)) = (meter.measure()?, meter.measure_both_asleep()?) {
    ///     println!("{:?} beside a thread that runs, {:?} beside one that sleeps", alone.latency, both.latency);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn measure_both_asleep(&mut self) -> io::Result<Option<SleepCost>> {
        self.measure_with(Waker::Sleeps)
    }

    fn measure_with(&mut self, waker: Waker) -> io::Result<Option<SleepCost>> {
        let core = self.cores[self.next % self.cores.len()];
        self.next = (self.next + 1) % self.cores.len();
        let shared = Arc::new(Shared {
            kind: waker,
            bell: EventNotifier::new()?,
            answer: EventNotifier::new()?,
            turn: AtomicU32::new(0),
            rung_at: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            began: Instant::now(),
        });
        let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let waker = spawn("sleep-waker").spawn({
            let shared = shared.clone();
            move || shared.wake(core)
        })?;
        let sleeper = spawn("sleep-meter").spawn({
            let shared = shared.clone();
            move || shared.sleep(core)
        });
        let slept = match sleeper {
            // The thread cannot panic.
            Ok(sleeper) => sleeper.join().unwrap_or_else(|_| Ok(Slept::default())),
            Err(error) => Err(error),
        };
        shared.is_over.store(true, Ordering::Release);
        // Wakes a sleeping waker, which then checks `is_over`. Writing an open eventfd cannot fail.
        let _ = shared.answer.set();
        // The waker cannot panic, either; without its figures a kick costs nothing.
        let kicks = waker.join().unwrap_or_default();
        let Slept { latencies, cpu } = slept?;
        if latencies.len() < SLEEPS as usize / 2 {
            return Ok(None);
        }
        let latencies = sorted(latencies);
        let idle_write = mean_of_quicker_half(&sorted(idle_writes()?));
        Ok(Some(SleepCost {
            latency: mean_of_quicker_half(&latencies),
            slow_latency: Duration::from_nanos(latencies[latencies.len() * 9 / 10]),
            cpu: cpu / latencies.len() as u32,
            kick: mean_of_quicker_half(&sorted(kicks)).saturating_sub(idle_write),
            idle_write,
        }))
    }
}

/// The measurements of a batch.
#[derive(Default)]
struct Slept {
    /// In nanoseconds.
    latencies: Vec<u64>,
    /// The processor time of all.
    cpu: Duration,
}

/// The state of the waker while the sleeper sleeps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waker {
    Runs,
    Sleeps,
}

/// The shared state of the sleeper and the waker.
struct Shared {
    kind: Waker,
    bell: EventNotifier,
    /// Wakes a waker that sleeps.
    answer: EventNotifier,
    /// The number of the sleep that begins.
    turn: AtomicU32,
    /// The time of the last write of the eventfd, in nanoseconds.
    rung_at: AtomicU64,
    is_over: AtomicBool,
    began: Instant,
}

impl Shared {
    fn sleep(&self, core: usize) -> io::Result<Slept> {
        let mut here = CpuSet::new();
        here.set(core);
        // If the system no longer allows that core, the thread stays where it is.
        let _ = sched_setaffinity(None, &here);
        let mut latencies = Vec::with_capacity(SLEEPS as usize);
        let before = thread_cpu_time();
        for number in 1..=SLEEPS {
            if self.began.elapsed() > LONGEST {
                break;
            }
            self.turn.store(number, Ordering::Release);
            if self.kind == Waker::Sleeps {
                self.answer.set()?;
            }
            poll(&mut [PollFd::new(&self.bell, PollFlags::IN)], None)?;
            let woken = self.now_ns();
            self.bell.test_and_clear()?;
            latencies.push(woken.saturating_sub(self.rung_at.load(Ordering::Acquire)));
        }
        let cpu = thread_cpu_time().saturating_sub(before);
        Ok(Slept { latencies, cpu })
    }

    /// Wakes the sleeper some time after each of its turns has begun. Returns the duration of each write, in
    /// nanoseconds.
    fn wake(&self, sleeper: usize) -> Vec<u64> {
        leave_core(sleeper);
        let mut kicks = Vec::with_capacity(SLEEPS as usize);
        let mut last = 0;
        while !self.is_over.load(Ordering::Acquire) {
            let now = self.turn.load(Ordering::Acquire);
            if now == last {
                self.await_turn();
                continue;
            }
            last = now;
            let asleep = Instant::now();
            while self.kind == Waker::Runs && asleep.elapsed() < NAP {
                std::hint::spin_loop();
            }
            let rung_at = self.now_ns();
            self.rung_at.store(rung_at, Ordering::Release);
            // Writing an open eventfd cannot fail.
            let _ = self.bell.set();
            kicks.push(self.now_ns().saturating_sub(rung_at));
        }
        kicks
    }

    /// Waits until the waker may have something to do. The waker reads the turn and the end after each
    /// wake-up, so none is lost.
    fn await_turn(&self) {
        if self.kind == Waker::Runs {
            std::thread::yield_now();
            return;
        }
        // If the poll fails, the waker checks again at once.
        let _ = poll(&mut [PollFd::new(&self.answer, PollFlags::IN)], None);
        let _ = self.answer.test_and_clear();
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

/// Returns the durations of writes that wake no thread, in nanoseconds.
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

/// Returns the mean of the quicker half of sorted times: load on the machine prolongs the others. Zero
/// without any times.
fn mean_of_quicker_half(nanos: &[u64]) -> Duration {
    let half = &nanos[..nanos.len().div_ceil(2)];
    Duration::from_nanos(half.iter().sum::<u64>() / half.len().max(1) as u64)
}

/// Moves this thread to a core other than `core`, if it may. Threads on other cores wake a loop that is bound
/// to a core. That takes longer than from the same core, on which a new thread might begin.
fn leave_core(core: usize) {
    let mut others = CpuSet::new();
    (0..CpuSet::MAX_CPU)
        .filter(|other| *other != core)
        .for_each(|other| others.set(other));
    // If there is no other core, it stays.
    let _ = sched_setaffinity(None, &others);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a12_a_measurement_is_plausible_and_ends() {
        let before = sched_getaffinity(None).unwrap();
        let mut meter = SleepMeter::new();
        for turn in 0..8 {
            let cost = if turn % 2 == 0 {
                meter.measure()
            } else {
                meter.measure_both_asleep()
            };
            let cost = cost.expect("there are descriptors left");
            assert!(
                cost.is_none_or(|cost| {
                    let longest = Duration::from_secs(1);
                    cost.latency <= cost.slow_latency && cost.latency < longest && cost.kick < longest
                }),
                "{cost:?}"
            );
        }
        let after = sched_getaffinity(None).unwrap();
        let is_same = |core| before.is_set(core) == after.is_set(core);
        assert!((0..CpuSet::MAX_CPU).all(is_same), "the caller may use its cores");
    }

    #[test]
    fn a12_each_core_that_may_be_used_has_its_turn() {
        let allowed = sched_getaffinity(None).unwrap();
        let mut cores = SleepMeter::new().cores;
        cores.sort_unstable();
        let expected: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|core| allowed.is_set(*core))
            .collect();
        assert_eq!(cores, expected);
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
