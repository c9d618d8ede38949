//! [`Learned`]: learns which polling time would have cost least, for each kind of wait that came before.
//!
//! # The cost of a wait
//! Polling for `s` costs `s`, or only `w` if the event comes after `w <= s`. Sleeping costs the wake-up's latency and the CPU
//! time of both sides. Priced in CPU nanoseconds that is *b*, the break-even: polling for less than *b* is cheaper than a
//! sleep. After every wait `w` is known, observed or observed less the latency, so the cost of *every* polling time is known,
//! not only of the one that was chosen: nothing has to be tried out.
//!
//! # What it does
//! It keeps a ladder of eight polling times, in units of *b*, and for each the excess cost over the best one, discounted by
//! one part in 256 per wait and clamped, so that any of them can become the best within a few waits. There are four such
//! banks, or sixteen: which one is used depends on how long the previous wait, or the previous two, took, because bursts and
//! pauses follow their own laws. In the middle there is a guard: when the accumulated cost exceeds 2.25 times that of an
//! optimum that knows the future, by more than 16 *b*, it polls for *b*, with which it cannot lose more than twice the
//! optimum. So on any stretch of waits the cost is at most 2.25 times the optimum and 82 *b*.
//!
//! Integers only; no division outside of set-up; no random numbers.
//!
//! Sources: ski rental, Karlin, Manasse, McGeoch, Owicki 1990; experts with full information and a fixed share, Herbster and
//! Warmuth 1998. The ladder, the clamp and the guard's constants are this project's.

use core::time::Duration;

use crate::params::saturating_ns;
use crate::{Iteration, PollParams, PollPolicy, WakeCost};

const RUNGS: usize = 8;
/// In parts of a thousand of the break-even.
const LADDER: [u64; RUNGS] = [0, 125, 250, 420, 700, 1000, 1600, 3200];
/// The break-even in the controller's units.
const UNIT: i32 = 1024;
/// Waits and excess costs beyond this are all the same.
const CLAMP: i32 = 8 * UNIT;
/// What the others start with, so that polling for the break-even is preferred until something is known.
const HEAD_START: i16 = 256;
/// The guard takes over beyond this deficit.
const DEFICIT: i32 = 16 * UNIT;
const LEAST_DEFICIT: i32 = -64 * UNIT;
/// The least break-even, in nanoseconds, for which the units are fine enough.
const LEAST_BREAK_EVEN: u64 = 256;
/// The latency is measured anew each so many sleeps.
const SLEEPS_A_MEASUREMENT: u32 = 128;

/// A bank: by rung, the excess cost over the best one.
type Bank = [i16; RUNGS];

/// Polls for as long as would have cost least in waits like this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// What a sleep costs, as told or measured.
    wake: WakeCost,
    max_ns: u64,
    /// How many of the previous waits choose the bank: one or two.
    order: u8,
    break_even_ns: u64,
    /// 2^34 over the break-even.
    reciprocal: u64,
    budget_ns: [u64; RUNGS],
    /// The same in units.
    threshold: [i32; RUNGS],
    /// The rung nearest to the break-even.
    fallback: usize,
    banks: [Bank; 16],
    best: [u8; 16],
    /// Which bank the next wait belongs to.
    context: usize,
    current: usize,
    deficit: i32,
    /// The shortest sleep of this measurement, in nanoseconds, and how many there were.
    shortest_ns: u64,
    sleeps: u32,
    /// Waits that were announced and did not sleep.
    ready_at_once: u64,
}

impl Learned {
    /// A policy that knows what a sleep costs and nothing else; the previous wait chooses the bank.
    #[must_use]
    pub fn new(params: PollParams, wake: WakeCost) -> Self {
        Self::with_order(params, wake, 1)
    }

    /// As [`new`](Self::new); the previous two waits choose the bank.
    #[must_use]
    pub fn second_order(params: PollParams, wake: WakeCost) -> Self {
        Self::with_order(params, wake, 2)
    }

    fn with_order(params: PollParams, wake: WakeCost, order: u8) -> Self {
        let mut new = Self {
            wake,
            max_ns: params.max_ns(),
            order,
            break_even_ns: 0,
            reciprocal: 0,
            budget_ns: [0; RUNGS],
            threshold: [0; RUNGS],
            fallback: 0,
            banks: [[0; RUNGS]; 16],
            best: [0; 16],
            context: 0,
            current: 0,
            deficit: 0,
            shortest_ns: u64::MAX,
            sleeps: 0,
            ready_at_once: 0,
        };
        new.set_up();
        new.forget();
        new
    }

    /// Everything that follows from the break-even and the maximum. This is where divisions are.
    fn set_up(&mut self) {
        let b = self.wake.break_even_ns().clamp(LEAST_BREAK_EVEN, 1 << 33);
        self.break_even_ns = b;
        self.reciprocal = (1 << 34) / b;
        let cap = b.min(self.max_ns);
        self.fallback = RUNGS - 1;
        for (rung, parts) in LADDER.iter().enumerate().rev() {
            self.budget_ns[rung] = (parts * b / 1000).min(self.max_ns);
            self.threshold[rung] = self.units(self.budget_ns[rung]);
            if self.budget_ns[rung] >= cap {
                self.fallback = rung;
            }
        }
    }

    fn forget(&mut self) {
        for (bank, best) in self.banks.iter_mut().zip(&mut self.best) {
            *bank = [HEAD_START; RUNGS];
            bank[self.fallback] = 0;
            *best = self.fallback as u8;
        }
        (self.context, self.current, self.deficit) = (0, self.fallback, 0);
    }

    /// Nanoseconds in units of the break-even, at most [`CLAMP`].
    fn units(&self, ns: u64) -> i32 {
        let most = 8 * self.break_even_ns;
        ((ns.min(most) * self.reciprocal) >> 24).min(CLAMP as u64) as i32
    }

    /// The break-even now in force.
    #[must_use]
    pub fn break_even(&self) -> Duration {
        Duration::from_nanos(self.break_even_ns)
    }

    /// What a sleep costs, as it is believed now.
    #[must_use]
    pub fn wake_cost(&self) -> WakeCost {
        self.wake
    }

    /// How many waits were announced and found something before they slept: they teach nothing.
    #[must_use]
    pub fn ready_at_once(&self) -> u64 {
        self.ready_at_once
    }

    /// A sleep of `ns` in all; the shortest of many is the latency, because its event came at once.
    fn measure(&mut self, ns: u64) {
        self.shortest_ns = self.shortest_ns.min(ns);
        self.sleeps += 1;
        if self.sleeps < SLEEPS_A_MEASUREMENT {
            return;
        }
        let shortest = core::mem::replace(&mut self.shortest_ns, u64::MAX);
        self.sleeps = 0;
        // Only a latency that was believed to be too long shows by itself: a long shortest sleep may just be a slow event.
        if self.wake.is_measured() && shortest < self.wake.latency_ns() {
            self.wake = self.wake.with_latency_ns(shortest);
            self.set_up();
        }
    }

    /// Learns from a wait of `w` units, after which `cost` units were spent.
    fn learn(&mut self, w: i32, cost: i32) {
        let optimum = w.min(UNIT);
        self.deficit = (self.deficit + cost - 9 * optimum / 4).max(LEAST_DEFICIT);
        let bank = &mut self.banks[self.context];
        for (excess, threshold) in bank.iter_mut().zip(&self.threshold) {
            let loss = if w <= *threshold { w } else { threshold + UNIT };
            // At most 8192 + 4301, which fits.
            *excess += loss as i16 - (*excess >> 8);
        }
        // The lowest excess, and among equals the lowest rung: both in one number.
        let least = bank
            .iter()
            .zip(0..)
            .map(|(excess, rung)| (excess & !7) | rung)
            .min()
            .unwrap_or(0);
        let (floor, best) = (least & !7, least & 7);
        for excess in bank.iter_mut() {
            *excess = (*excess - floor).min(CLAMP as i16);
        }
        self.best[self.context] = best as u8;
        let class = usize::from(w >= UNIT / 4) + usize::from(w >= UNIT) + usize::from(w >= 4 * UNIT);
        self.context = if self.order == 2 {
            (self.context & 3) << 2 | class
        } else {
            class
        };
        self.current = if self.deficit > DEFICIT {
            self.fallback
        } else {
            usize::from(self.best[self.context])
        };
    }
}

impl PollPolicy for Learned {
    fn name(&self) -> &'static str {
        if self.order == 2 { "learned-2" } else { "learned" }
    }

    fn budget(&self) -> Duration {
        Duration::from_nanos(self.budget_ns[self.current])
    }

    /// A deadline nearer than the break-even is polled for: that always beats a sleep.
    fn budget_until(&self, timeout: Option<Duration>) -> Duration {
        match timeout {
            Some(timeout) if saturating_ns(timeout) <= self.break_even_ns.min(self.max_ns) => timeout,
            Some(timeout) => self.budget().min(timeout),
            None => self.budget(),
        }
    }

    fn observe(&mut self, seen: Iteration) {
        if self.max_ns == 0 {
            return;
        }
        let (elapsed, spun) = (saturating_ns(seen.elapsed), saturating_ns(seen.spun));
        let threshold = self.threshold[self.current];
        if !seen.blocked {
            let w = self.units(elapsed);
            // What polling caught was caught in time, whatever the clock's grain says.
            let w = if seen.hit { w.min(threshold) } else { w };
            self.learn(w, w);
            return;
        }
        let slept = elapsed.saturating_sub(spun);
        if slept < self.wake.latency_ns() / 2 {
            self.ready_at_once += 1;
            self.measure(slept);
            return;
        }
        self.measure(slept);
        let w = self
            .units(elapsed.saturating_sub(self.wake.latency_ns()))
            .max(threshold + 1);
        self.learn(w, w.min(threshold) + UNIT);
    }

    fn reset(&mut self, params: PollParams) {
        self.max_ns = params.max_ns();
        self.set_up();
        self.forget();
    }
}

#[cfg(test)]
#[path = "learned_tests.rs"]
mod tests;
