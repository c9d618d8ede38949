//! Replays polling policies on traces of waits, and compares their cost with the clairvoyant optimum.
//!
//! A [`Trace`] is a list of waits. [`families`] generates traces, [`Trace::parse`] reads one. [`replay`] runs
//! a policy on a trace under the cost model of `aio-pollctl`, with the price of processor time at 100 percent
//! and one wake-up cost `b`: a wait of `w` after a polling time of `s` costs `w` if `w <= s`, and `s + b`
//! otherwise. The policy observes the same times as in a loop: a kick ends each sleep. The sleep includes a
//! wake-up latency, which varies and averages four fifths of `b`.
//!
//! ```
//! use aio_pollctl::Policy;
//! use aio_replay::{Role, Trace, params_for, replay};
//!
//! // Waits of 2 us; a sleep costs 10 us. `learned` polls through all of them.
//! let trace = Trace::new("steady", "example", Role::File, 1).with_waits([2_000; 1000]);
//! let mut policy = Policy::by_name("learned", params_for(10_000)).expect("a policy of that name");
//! let outcome = replay(&trace, 10_000, &mut policy);
//! assert_eq!((outcome.wakeups, outcome.cost_ns), (0, outcome.optimum_ns));
//! ```
//!
//! A trace cannot express a client that waits for its answers, and pays for its kicks while the loop sleeps.
//! [`ClosedLoop`] simulates such a client, with a think time and a number of requests under way.
//!
//! # What it does not do
//! It runs no loop and reads no clock. The same seed gives the same results on every machine.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod closed_loop;
mod decider;
pub mod families;
mod maker;
mod mixes;
mod optimum;
mod random;
mod scenarios;
mod trace;

use std::time::Duration;

pub use closed_loop::{ClosedLoop, ClosedOutcome, Deciding};
pub use optimum::BestFixed;
pub use random::Random;
pub use scenarios::{
    Adversary, Ceiled, ceiling, deadlines, false_sleeps, sleeping_peer, step_response, worst_adversary,
};
pub use trace::{ParseError, Role, SOURCES, Trace};

use aio_pollctl::{Fixed, HandlerMemory, Iteration, PollParams, PollPolicy, WakeCost};

/// The default wake-up costs for comparing policies, in nanoseconds.
pub const WAKE_COSTS_NS: [u64; 4] = [5_000, 10_000, 20_000, 50_000];

/// Returns parameters for a wake-up cost, without a maximum.
#[must_use]
pub const fn params_for(wake_cost_ns: u64) -> PollParams {
    PollParams::unlimited().with_wake(WakeCost::of_total(Duration::from_nanos(wake_cost_ns)))
}

/// The result of a replay.
///
/// # Examples
/// ```
/// use aio_pollctl::Never;
/// use aio_replay::{Role, Trace, replay};
///
/// let trace = Trace::new("steady", "example", Role::File, 1).with_waits([2_000; 1000]);
/// let outcome = replay(&trace, 10_000, &mut Never);
/// assert_eq!((outcome.waits, outcome.wakeups, outcome.spin_ns), (1000, 1000, 0));
/// assert_eq!(outcome.ratio(), 5.0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The number of waits.
    pub waits: u64,
    /// The cost of polling and wake-ups, in nanoseconds.
    pub cost_ns: u64,
    /// The cost of the clairvoyant optimum, in nanoseconds.
    pub optimum_ns: u64,
    /// The time spent polling, in nanoseconds.
    pub spin_ns: u64,
    /// The number of sleeps.
    pub wakeups: u64,
    /// The time from the first to the last event, with wake-up latencies, in nanoseconds.
    pub total_ns: u64,
    /// The number of sleeps by their latency, in 1/256 of the mean.
    late: Box<[u32; LATE]>,
    mean_late_ns: u64,
}

/// The number of distinct latencies, up to 16 times the mean.
const LATE: usize = 4096;

impl Outcome {
    fn new(wake_cost_ns: u64) -> Self {
        Self {
            waits: 0,
            cost_ns: 0,
            optimum_ns: 0,
            spin_ns: 0,
            wakeups: 0,
            total_ns: 0,
            late: Box::new([0; LATE]),
            mean_late_ns: mean_late_ns(wake_cost_ns),
        }
    }

    /// Returns the cost divided by the clairvoyant optimum.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        if self.optimum_ns == 0 {
            return if self.cost_ns == 0 { 1.0 } else { f64::INFINITY };
        }
        self.cost_ns as f64 / self.optimum_ns as f64
    }

    /// Returns the share of the total time spent polling.
    #[must_use]
    pub fn spin_share(&self) -> f64 {
        self.spin_ns as f64 / self.total_ns.max(1) as f64
    }

    /// Returns the 99th percentile of the latency added to a wait, in nanoseconds. A wait without a sleep has
    /// none.
    #[must_use]
    pub fn p99_added_ns(&self) -> u64 {
        let later = self.waits / 100;
        let mut count = 0;
        for (factor, waits) in self.late.iter().enumerate().rev() {
            count += u64::from(*waits);
            if count > later {
                return (self.mean_late_ns * factor as u64) >> 8;
            }
        }
        0
    }

    fn add(&mut self, wait: u64, wake_cost_ns: u64, spun: u64, slept: Option<u16>) {
        self.waits += 1;
        self.optimum_ns += wait.min(wake_cost_ns);
        self.spin_ns += spun;
        self.cost_ns += spun;
        self.total_ns += wait;
        if let Some(noise) = slept {
            self.cost_ns += wake_cost_ns;
            self.wakeups += 1;
            self.total_ns += late_ns(self.mean_late_ns, noise);
            self.late[usize::from(noise >> 4)] += 1;
        }
    }
}

const fn mean_late_ns(wake_cost_ns: u64) -> u64 {
    wake_cost_ns * 4 / 5
}

/// Returns a latency: the mean times `noise` / 4096.
const fn late_ns(mean_ns: u64, noise: u16) -> u64 {
    (mean_ns * noise as u64) >> 12
}

/// The longest duration, as in `aio-pollctl`; longer ones are clipped.
const LONGEST_DURATION_NS: u64 = i64::MAX as u64;

fn to_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).map_or(LONGEST_DURATION_NS, |ns| ns.min(LONGEST_DURATION_NS))
}

/// Runs `policy` on `trace`.
#[must_use]
pub fn replay(trace: &Trace, wake_cost_ns: u64, policy: &mut dyn PollPolicy) -> Outcome {
    let mut outcome = Outcome::new(wake_cost_ns);
    let mut handlers = Handlers::new(trace.sources());
    for wait in trace.iter() {
        let budget = to_ns(policy.budget());
        let slept = wait.ns > budget;
        let (late, spun) = if slept {
            (late_ns(outcome.mean_late_ns, wait.noise), budget)
        } else {
            (0, wait.ns)
        };
        let seen = Iteration::new(
            Duration::from_nanos(wait.ns + late),
            Duration::from_nanos(spun),
            slept,
            !slept,
        );
        let mut seen = seen.with_source(u32::from(wait.source)).with_events(1);
        if slept {
            seen = seen.with_kicks(1);
        }
        handlers.observe(policy, seen, wait.source);
        policy.observe(seen);
        outcome.add(wait.ns, wake_cost_ns, spun, slept.then_some(wait.noise));
    }
    outcome
}

/// The policy's state for each handler, as a loop stores it.
struct Handlers {
    memory: [HandlerMemory; SOURCES],
    observed: usize,
}

impl Handlers {
    fn new(observed: usize) -> Self {
        Self {
            memory: [HandlerMemory::default(); SOURCES],
            observed: observed.min(SOURCES),
        }
    }

    fn observe(&mut self, policy: &mut dyn PollPolicy, seen: Iteration, source: u8) {
        if policy.is_per_handler() {
            for (index, memory) in self.memory[..self.observed].iter_mut().enumerate() {
                policy.observe_handler(memory, index == usize::from(source), seen);
            }
        }
    }
}

/// Runs the best fixed polling time in hindsight, one for each phase of the trace.
#[must_use]
pub fn replay_best_fixed(trace: &Trace, wake_cost_ns: u64, best: &BestFixed) -> Outcome {
    let mut outcome = Outcome::new(wake_cost_ns);
    let times = best.times(wake_cost_ns);
    for (phase, time) in trace.phases().zip(times) {
        // A maximum of zero turns polling off.
        let mut fixed = Fixed::new(PollParams::up_to(Duration::from_nanos(time)));
        outcome.join(&replay(&phase, wake_cost_ns, &mut fixed));
    }
    outcome
}

impl Outcome {
    fn join(&mut self, other: &Self) {
        self.waits += other.waits;
        self.cost_ns += other.cost_ns;
        self.optimum_ns += other.optimum_ns;
        self.spin_ns += other.spin_ns;
        self.wakeups += other.wakeups;
        self.total_ns += other.total_ns;
        for (here, there) in self.late.iter_mut().zip(other.late.iter()) {
            *here += there;
        }
    }
}

/// Returns the geometric mean; 1 for an empty sequence.
#[must_use]
pub fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0u32);
    for ratio in ratios {
        sum += ratio.ln();
        count += 1;
    }
    if count == 0 {
        1.0
    } else {
        (sum / f64::from(count)).exp()
    }
}

#[cfg(test)]
mod tests {
    use aio_pollctl::{Always, Never, Policy, SkiRental};

    use super::*;

    fn trace(waits: &[u64]) -> Trace {
        Trace::new("test", "test", Role::File, 1).with_waits(waits.iter().copied())
    }

    #[test]
    fn costs_follow_the_model() {
        let trace = trace(&[100, 999, 1000, 1001, 50_000]);
        let of = |policy: &mut dyn PollPolicy| {
            let outcome = replay(&trace, 1000, policy);
            assert_eq!(outcome.optimum_ns, 100 + 999 + 1000 + 1000 + 1000);
            (outcome.cost_ns, outcome.spin_ns, outcome.wakeups)
        };
        assert_eq!(of(&mut Never), (5000, 0, 5));
        assert_eq!(of(&mut Always::new(params_for(1000))), (53_100, 53_100, 0));
        assert_eq!(of(&mut SkiRental::new(params_for(1000))), (6099, 4099, 2));
    }

    #[test]
    fn hindsight_is_no_worse_than_any_fixed_time() {
        for trace in families::tuned(7, 2000) {
            let best = BestFixed::of(&trace);
            for wake in WAKE_COSTS_NS {
                let limit = replay_best_fixed(&trace, wake, &best);
                assert_eq!(limit.cost_ns, best.cost(wake), "{}", trace.name());
                for time in [1, 1000, 4000, 10_000, 33_000, 200_000] {
                    let params = PollParams::unlimited().with_fixed(Duration::from_nanos(time));
                    let fixed = replay(&trace, wake, &mut Fixed::new(params));
                    assert!(limit.cost_ns <= fixed.cost_ns, "{} {wake} {time}", trace.name());
                }
                assert!(limit.cost_ns >= limit.optimum_ns);
            }
        }
    }

    #[test]
    fn a_replay_is_the_same_each_time() {
        for trace in families::held_out(3, 1000) {
            for name in Policy::NAMES {
                let run = || {
                    let mut policy = Policy::by_name(name, params_for(20_000)).unwrap();
                    replay(&trace, 20_000, &mut policy)
                };
                assert_eq!(run(), run(), "{name} {}", trace.name());
            }
        }
    }

    #[test]
    fn the_99th_percentile_of_lateness() {
        let waits: Vec<u64> = (0..1000).map(|n| if n % 50 == 0 { 9999 } else { 5 }).collect();
        let outcome = replay(&trace(&waits), 1000, &mut SkiRental::new(params_for(1000)));
        assert_eq!(outcome.wakeups, 20);
        let p99 = outcome.p99_added_ns();
        assert!(
            (400..1600).contains(&p99),
            "{p99}: two of a hundred sleep, so it is one of them"
        );
        let waits: Vec<u64> = (0..1000).map(|n| if n % 200 == 0 { 9999 } else { 5 }).collect();
        let outcome = replay(&trace(&waits), 1000, &mut SkiRental::new(params_for(1000)));
        assert_eq!(outcome.p99_added_ns(), 0);
    }

    #[test]
    fn geometric_means() {
        assert!((geometric_mean([2.0, 8.0]) - 4.0).abs() < 1e-9);
        assert!((geometric_mean([]) - 1.0).abs() < 1e-9);
    }
}
