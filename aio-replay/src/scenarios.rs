//! Situations that a trace cannot express: adversaries, sudden changes, known deadlines, sleeps that end at once, a limit.

use std::time::Duration;

use crate::{Outcome, Random, Trace, late_ns, mean_late_ns, params_for, replay, to_ns};
use aio_pollctl::{Iteration, Policy, PollParams, PollPolicy};

/// An adversary and its result.
///
/// # Examples
/// ```
/// use aio_replay::worst_adversary;
///
/// let worst = worst_adversary("learned", 10_000, 5_000, 1).expect("a policy of that name");
/// assert!(worst.ratio > 1.0 && worst.ratio < 2.5, "{}: {}", worst.name, worst.ratio);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adversary {
    /// The strategy.
    pub name: &'static str,
    /// The cost divided by the clairvoyant optimum.
    pub ratio: f64,
}

/// Chooses the next wait.
type Strategy = fn(&Loop, &mut Random) -> u64;

/// A loop with one wait after the other. Its wake-up latency is the one that the policy assumes.
struct Loop {
    policy: Policy,
    wake_ns: u64,
    late_ns: u64,
}

impl Loop {
    fn new(policy: Policy, wake_ns: u64) -> Self {
        let late_ns = mean_late_ns(wake_ns);
        Self {
            policy,
            wake_ns,
            late_ns,
        }
    }

    fn budget(&self) -> u64 {
        to_ns(self.policy.budget())
    }

    /// Returns the cost and the optimum of a wait.
    fn step(&mut self, wait: u64) -> (u64, u64) {
        let budget = self.budget();
        let slept = wait > budget;
        let elapsed = wait + if slept { self.late_ns } else { 0 };
        let spun = Duration::from_nanos(wait.min(budget));
        let seen = Iteration::new(Duration::from_nanos(elapsed), spun, slept, !slept);
        self.policy.observe(seen);
        let cost = if slept { budget + self.wake_ns } else { wait };
        (cost, wait.min(self.wake_ns))
    }
}

/// Returns the worst of some adversaries. They read the policy, and its budget before they choose the wait.
///
/// Returns `None` if there is no policy of that name.
#[must_use]
pub fn worst_adversary(name: &str, wake_ns: u64, waits: usize, seed: u64) -> Option<Adversary> {
    let policy = Policy::by_name(name, params_for(wake_ns))?;
    let strategies: [(&'static str, Strategy); 6] = [
        ("just missed", |state, _| missed(state)),
        ("just missed, at most b", |state, _| {
            missed(state).min(state.wake_ns)
        }),
        ("just missed or just caught", |state, random| {
            missed(state) - state.budget().min(random.below(2) * (state.wake_ns >> 9))
        }),
        ("at once, then far away", |state, random| {
            if state.budget() > 0 && random.below(8) > 0 {
                state.wake_ns << 10
            } else {
                random.below(64)
            }
        }),
        ("the worst next wait", |state, _| worst_next(state)),
        ("random lengths", |state, random| {
            state.wake_ns >> random.below(8) << random.below(8)
        }),
    ];
    let mut worst = Adversary { name: "", ratio: 0.0 };
    for (name, choose) in strategies {
        let mut state = Loop::new(policy.clone(), wake_ns);
        let mut random = Random::named(seed, name);
        let (mut cost, mut optimum) = (0, 0);
        for _ in 0..waits {
            let wait = choose(&state, &mut random);
            let (paid, due) = state.step(wait);
            cost += paid;
            optimum += due;
        }
        let ratio = cost as f64 / optimum.max(1) as f64;
        if ratio > worst.ratio {
            worst = Adversary { name, ratio };
        }
    }
    Some(worst)
}

/// Returns a wait slightly longer than the budget, by the resolution of the policy's units.
fn missed(state: &Loop) -> u64 {
    state.budget().saturating_add((state.wake_ns >> 9).max(1))
}

/// Returns the wait, at or above a polling time, with the highest cost over the optimum, now and with the
/// next budget.
fn worst_next(state: &Loop) -> u64 {
    let mut best = (f64::MIN, 0);
    for eighth in 0..28 {
        let wait = state.wake_ns * eighth / 8 + (state.wake_ns >> 9);
        let mut copy = Loop::new(state.policy.clone(), state.wake_ns);
        let (cost, optimum) = copy.step(wait);
        let (later, due) = copy.step(missed(&copy));
        let gain = (cost + later) as f64 - 2.25 * (optimum + due) as f64;
        if gain > best.0 {
            best = (gain, wait);
        }
    }
    best.1
}

/// Returns the number of waits until the policy has adapted for good: after a change from idle to busy, and
/// from busy to idle.
///
/// Returns `None` if there is no policy of that name.
#[must_use]
pub fn step_response(name: &str, wake_ns: u64) -> Option<(usize, usize)> {
    let policy = Policy::by_name(name, params_for(wake_ns))?;
    let change = |before: u64, after: u64| {
        let mut state = Loop::new(policy.clone(), wake_ns);
        for _ in 0..3000 {
            state.step(before);
        }
        let wrong: Vec<usize> = (0..3000)
            .filter(|_| {
                let (cost, optimum) = state.step(after);
                cost > optimum
            })
            .collect();
        wrong.last().map_or(0, |last| last + 1)
    };
    let (short, long) = (wake_ns / 2, 50 * wake_ns);
    Some((change(long, short), change(short, long)))
}

/// Runs a policy with a peer that sends its next request at once, unless it fell asleep before a late answer.
/// In that case the request comes after 1.25 times the cost of a sleep. Returns the final duration of a
/// request, divided by its duration without sleeps.
///
/// Returns `None` if there is no policy of that name.
#[must_use]
pub fn sleeping_peer(name: &str, wake_ns: u64) -> Option<f64> {
    const WAITS: u32 = 20_000;
    let mut state = Loop::new(Policy::by_name(name, params_for(wake_ns))?, wake_ns);
    let (awake, woken) = (wake_ns / 10, wake_ns + wake_ns / 4);
    let (mut wait, mut time) = (woken, 0);
    for number in 0..WAITS {
        let slept = wait > state.budget();
        state.step(wait);
        if number >= WAITS / 2 {
            time += wait + if slept { state.late_ns } else { 0 };
        }
        wait = if slept { woken } else { awake };
    }
    Some(time as f64 / (awake * u64::from(WAITS / 2)) as f64)
}

/// Runs a policy with a timer beside unpredictable events. Returns two costs over the clairvoyant optimum: if
/// the policy gets the deadline of the timer, and if it does not.
///
/// Returns `None` if there is no policy of that name.
#[must_use]
pub fn deadlines(name: &str, wake_ns: u64, timer_ns: u64, event_ns: f64, seed: u64) -> Option<(f64, f64)> {
    let run = |knows: bool| {
        let mut policy = Policy::by_name(name, params_for(wake_ns))?;
        let mut random = Random::named(seed, "deadlines");
        let mut outcome = Outcome::new(wake_ns);
        let (mut timer, mut event) = (timer_ns, random.exponential(event_ns) as u64);
        for _ in 0..50_000 {
            let wait = timer.min(event);
            let due = Duration::from_nanos(timer);
            let budget = if knows {
                policy.budget_until(Some(due))
            } else {
                policy.budget().min(due)
            };
            let budget = to_ns(budget);
            let slept = wait > budget;
            let noise = 4096 + (random.normal() * 1000.0) as i32;
            let noise = noise.clamp(1500, 9000) as u16;
            let late = if slept {
                late_ns(mean_late_ns(wake_ns), noise)
            } else {
                0
            };
            let spun = wait.min(budget);
            let hit = !slept && event <= timer;
            let mut seen = Iteration::new(
                Duration::from_nanos(wait + late),
                Duration::from_nanos(spun),
                slept,
                hit,
            );
            if knows {
                // Like a measurement in a loop: a sleep to the deadline ends late, too.
                seen = seen.with_deadline(due, timer < event);
                if slept && timer < event {
                    seen.elapsed = due;
                }
            }
            policy.observe(seen);
            outcome.add(wait, wake_ns, spun, slept.then_some(noise));
            timer -= wait;
            event -= wait;
            if timer == 0 {
                timer = timer_ns;
            }
            if event == 0 {
                event = 1 + random.exponential(event_ns) as u64;
            }
        }
        Some(outcome.ratio())
    };
    Some((run(true)?, run(false)?))
}

/// Runs a policy with events between the last check and the sleep, which end this percentage of sleeps at
/// once. Returns two costs over the clairvoyant optimum: if the policy can recognize such a sleep, and if it
/// appears as long as a short one.
///
/// Returns `None` if there is no policy of that name.
#[must_use]
pub fn false_sleeps(name: &str, trace: &Trace, wake_ns: u64, percent: u64) -> Option<(f64, f64)> {
    let run = |tell: bool| {
        let mut policy = Policy::by_name(name, params_for(wake_ns))?;
        let mut random = Random::named(percent, trace.name());
        let mut outcome = Outcome::new(wake_ns);
        for wait in trace.iter() {
            let budget = to_ns(policy.budget());
            let slept = wait.ns > budget;
            let at_once = slept && random.below(100) < percent;
            let spun = wait.ns.min(budget);
            let elapsed = match (at_once, slept) {
                (true, _) if tell => spun + 300,
                (true, _) => spun + mean_late_ns(wake_ns) * 3 / 5,
                (false, true) => wait.ns + late_ns(mean_late_ns(wake_ns), wait.noise),
                (false, false) => wait.ns,
            };
            let seen = Iteration::new(
                Duration::from_nanos(elapsed),
                Duration::from_nanos(spun),
                slept,
                !slept,
            );
            policy.observe(seen);
            if at_once {
                outcome.add(spun, wake_ns, spun, None);
            } else {
                outcome.add(wait.ns, wake_ns, spun, slept.then_some(wait.noise));
            }
        }
        Some(outcome.ratio())
    };
    Some((run(true)?, run(false)?))
}

/// The effect of a limit on the share of polling.
///
/// # Examples
/// ```
/// use aio_replay::{Role, Trace, ceiling};
///
/// let trace = Trace::new("steady", "example", Role::File, 1).with_waits([2_000; 10_000]);
/// let half = ceiling("learned", &trace, 10_000, 50).expect("a policy of that name");
/// let all = ceiling("learned", &trace, 10_000, 100).expect("a policy of that name");
/// assert!(half.spin_share < all.spin_share && half.ratio > all.ratio);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiled {
    /// The share of time spent polling.
    pub spin_share: f64,
    /// The cost divided by the clairvoyant optimum.
    pub ratio: f64,
}

/// Replays a trace with `poll-cpu-max` at this percentage.
///
/// Returns `None` if there is no policy of that name.
#[must_use]
pub fn ceiling(name: &str, trace: &Trace, wake_ns: u64, percent: u32) -> Option<Ceiled> {
    let params: PollParams = params_for(wake_ns).with_cpu_max(percent);
    let mut policy = Policy::by_name(name, params)?;
    let outcome = replay(trace, wake_ns, &mut policy);
    Some(Ceiled {
        spin_share: outcome.spin_share(),
        ratio: outcome.ratio(),
    })
}
