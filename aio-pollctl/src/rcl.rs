//! [`Rcl`]: the regret-clamped ladder, which `learned` and `learned-2` share.
//!
//! After each wait it is known what *every* rung would have cost, so almost nothing needs exploring (what does is in
//! `explore.rs`: a peer that sleeps only because we do). Each bank keeps, per rung,
//! how much more it cost than the best one lately. Which bank speaks depends on the class of the last wait (or of the last
//! two), on the class of a moving mean, and on which handler had the last event, if the loop tells: the first tells bursts
//! from what is between them, the second busy from quiet times, the third the kicks of a guest from the answers of its
//! disk. So it reacts at once where a single bank would have to learn anew. Where one of them means nothing, that costs
//! about a thousandth. A guard keeps the sum of costs below 2.25 times what somebody would pay who knows the waits in advance, whatever
//! they are. It has no randomness and no division.
//!
//! # The bound
//! The deficit `D` sums `cost - 2.25 * min(wait, b)` and never goes below -64 b. Above 16 b the rung of the break-even
//! time is used, with which a step changes it by at most `-0.25 * min(wait, b)`; with any other by at most 2 b. So over any
//! sequence of waits the costs are at most 2.25 times the optimum and 82 b. With a maximum `P` below `b` the factor is
//! `1.125 * (1 + b / P)`.

use core::time::Duration;

use crate::explore::Explorer;
use crate::ladder::{Ladder, RUNGS, UNIT};
use crate::latency::Latency;
use crate::params::saturating_ns;
use crate::{Effective, Iteration, PollParams};

/// What a rung may be behind the best: after so many units it can be the best again soon, however long it was bad.
const MOST_BEHIND: i16 = 8192;
/// Forgetting: the part of a figure, as a power of two, that goes at each visit.
const DECAY: u32 = 8;
/// What the safe rung is ahead at the start.
const HEAD_START: i16 = 256;
/// Rung numbers travel in the low bits of figures when the least is searched.
const NUMBER: i16 = (RUNGS - 1) as i16;
/// Where classes of waits and of their mean begin, in units.
const WAIT_CLASSES: [i32; 3] = [256, 1024, 4096];
const MEAN_CLASSES: [i32; 3] = [512, 1024, 2048];
/// The guard takes over when the deficit is above the first, and credit ends at the second, in units.
const DEFICIT_MOST: i64 = 16 * UNIT as i64;
const DEFICIT_LEAST: i64 = -64 * UNIT as i64;
/// The bound of the guard, times 1024.
const BOUND: u64 = 9 * 256;

/// What a learned policy counts besides what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sleeps that ended at once: the event came between the last look and the sleep. They teach nothing.
    pub ready_now: u64,
    /// Waits after which the guard chose.
    pub guarded: u64,
}

/// With `BANKS` banks: 4 for the handler, times 4 for the mean, times 4 for each wait that is looked back; at most 256.
#[derive(Clone, Debug)]
pub(crate) struct Rcl<const BANKS: usize> {
    banks: [[i16; RUNGS]; BANKS],
    best: [u8; BANKS],
    /// The bank that speaks.
    context: u8,
    /// The last waits, as classes of two bits.
    history: u8,
    /// The moving mean in units, times 16.
    mean: i32,
    current: u8,
    deficit: i64,
    /// The bound, times 1024.
    bound: i64,
    off: bool,
    latency: Latency,
    explorer: Explorer,
    ladder: Ladder,
    params: PollParams,
    counts: Counts,
}

impl<const BANKS: usize> Rcl<BANKS> {
    const HISTORY: u8 = (BANKS / 16 - 1) as u8;
    /// A wait counts for one part in two to this power. With more history the mean may look further.
    const MEAN_SHIFT: u32 = if BANKS == 64 { 1 } else { 3 };

    pub(crate) fn new(params: PollParams) -> Self {
        let ladder = Ladder::new(&params);
        let mut bank = [HEAD_START; RUNGS];
        bank[usize::from(ladder.safe)] = 0;
        Self {
            banks: [bank; BANKS],
            best: [ladder.safe; BANKS],
            context: 0,
            history: 0,
            mean: 0,
            current: ladder.safe,
            deficit: 0,
            bound: bound(ladder.break_even_ns, params.max_ns()),
            off: params.max.is_zero(),
            latency: Latency::new(&params),
            explorer: Explorer::default(),
            ladder,
            params,
            counts: Counts::default(),
        }
    }

    pub(crate) fn budget(&self) -> Duration {
        self.ladder.times[usize::from(self.current & NUMBER as u8)]
    }

    /// A known deadline nearer than the break-even time is polled for: that always costs less than sleeping.
    pub(crate) fn budget_until(&self, deadline: Option<Duration>) -> Duration {
        match deadline {
            Some(deadline) if deadline <= self.ladder.near => deadline,
            Some(deadline) => self.budget().min(deadline),
            None => self.budget(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn observe(&mut self, seen: &Iteration) {
        if self.off {
            return;
        }
        let Some((wait, spun)) = self.measure(seen) else {
            self.counts.ready_now += 1;
            return;
        };
        self.account(wait, spun, seen.blocked);
        let best = self.learn(wait);
        self.best[usize::from(self.context)] = best;
        self.remember(wait, seen.source);
        self.current = if self.deficit > DEFICIT_MOST {
            self.counts.guarded += 1;
            self.explorer.stop();
            self.ladder.safe
        } else {
            let best = self.best[usize::from(self.context)];
            let slept = seen.blocked && !seen.timed_out;
            self.explorer.next(best, wait, slept, &self.ladder.units)
        };
    }

    /// The wait and the time polled, in units; `None` if a sleep was none.
    fn measure(&mut self, seen: &Iteration) -> Option<(i16, i16)> {
        // A timer is as far away as it was, however late the loop was for it.
        let elapsed = match seen.deadline {
            Some(deadline) if seen.timed_out => deadline.min(seen.elapsed),
            _ => seen.elapsed,
        };
        let elapsed = saturating_ns(elapsed);
        let rung = self.ladder.units[usize::from(self.current & NUMBER as u8)];
        if seen.blocked {
            let spun = saturating_ns(seen.spun);
            // A ceiling or a near timer can have ended polling early.
            let spun_units = self.ladder.to_units(spun).min(rung);
            let late = if seen.timed_out {
                0 // the wake was due anyway
            } else {
                self.latency.of_sleep(elapsed.saturating_sub(spun))?
            };
            let wait = self.ladder.to_units(elapsed.saturating_sub(late));
            Some((wait.max(spun_units + 1), spun_units))
        } else {
            let wait = self.ladder.to_units(elapsed);
            let prolonged = seen.deadline.is_some_and(|deadline| deadline <= self.ladder.near);
            // The round that found it may have ended past the rung.
            let wait = if prolonged { wait } else { wait.min(rung) };
            Some((wait, wait))
        }
    }

    /// Adds what this wait cost to the deficit.
    fn account(&mut self, wait: i16, spun: i16, blocked: bool) {
        let cost = i64::from(spun) + if blocked { i64::from(UNIT) } else { 0 };
        let optimum = i64::from(wait).min(i64::from(UNIT));
        self.deficit = (self.deficit + cost - ((self.bound * optimum) >> 10)).max(DEFICIT_LEAST);
    }

    /// Adds what each rung would have cost to the bank that spoke; its best rung now.
    fn learn(&mut self, wait: i16) -> u8 {
        let bank = &mut self.banks[usize::from(self.context) & (BANKS - 1)];
        let mut least = i16::MAX;
        for (rung, units) in self.ladder.units.iter().enumerate() {
            let slept = if wait > *units { UNIT as i16 } else { 0 };
            let behind = bank[rung] - (bank[rung] >> DECAY) + wait.min(*units) + slept;
            bank[rung] = behind;
            least = least.min((behind & !NUMBER) | rung as i16);
        }
        for behind in bank {
            *behind = (*behind - (least & !NUMBER)).min(MOST_BEHIND);
        }
        (least & NUMBER) as u8
    }

    /// Chooses the bank that speaks next.
    fn remember(&mut self, wait: i16, source: Option<u32>) {
        let class =
            |value: i32, bounds: [i32; 3]| bounds.iter().map(|bound| u8::from(value >= *bound)).sum::<u8>();
        let wait = i32::from(wait);
        self.history = (self.history << 2 | class(wait, WAIT_CLASSES)) & Self::HISTORY;
        self.mean += ((wait << 4) - self.mean) >> Self::MEAN_SHIFT;
        let source = source.map_or(0, |source| source.wrapping_add(1) as u8 & 3);
        self.context =
            (source << 2 | class(self.mean >> 4, MEAN_CLASSES)) * (Self::HISTORY + 1) + self.history;
    }

    pub(crate) fn effective(&self, policy: &'static str) -> Effective {
        let longest = Duration::from_nanos(self.ladder.longest_ns());
        Effective {
            wake_latency_ns: Some(self.latency.ns()),
            ..Effective::with_cost(policy, &self.params, longest)
        }
    }
}

/// The factor of the bound, times 1024.
fn bound(break_even_ns: u64, max_ns: u64) -> i64 {
    if max_ns >= break_even_ns || max_ns == 0 {
        BOUND as i64
    } else {
        let half = u128::from(BOUND) / 2;
        (half + (half * u128::from(break_even_ns)).div_ceil(u128::from(max_ns))) as i64
    }
}

#[cfg(test)]
#[path = "rcl_tests.rs"]
mod tests;
