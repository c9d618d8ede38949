//! [`Rcl`]: the regret-clamped ladder, the implementation of `learned` and `learned-2`.
//!
//! After each wait the cost of *every* polling time of the [`Ladder`] is known, so almost nothing needs
//! exploring. (The exception, a peer that sleeps only because the loop sleeps, is in `explore.rs`.) Each bank
//! stores, for each time, by how much it recently cost more than the best one. The class of the last wait (or
//! of the last two), the class of a moving mean, and the handler of the last event, if the loop reports it,
//! select the bank. The first separates bursts from the gaps between them, the second busy from quiet
//! periods, the third the kicks of a guest from the answers of its disk. Where a single bank would have to
//! relearn, the policy therefore reacts at once. A selector without meaning costs about a thousandth. A clamp
//! keeps the sum of costs below 2.25 times the clairvoyant optimum, for any waits. The policy uses no
//! randomness and no division.
//!
//! # The price of a sleep
//! `b = (latency + k * kick) / price + cpu`, where `k` is the mean number of kicks that a sleep has recently
//! cost the peers ([`KickShare`]): 1 until the sleeps show another number, and at most 2. `b1` is `b` with
//! `k = 1`.
//!
//! # The bound
//! The deficit `D` sums `cost - 2.25 * min(wait, b)`, each wait at the `b` of its time, and never falls below -64 b1. Above 16 b1 the
//! policy uses the break-even time. A wait then changes `D` by at most `-0.25 * min(wait, b)`; with any other time a wait changes it by at
//! most 2 b, which is at most 4 b1. Over any sequence of waits the costs, kicks of the peers included, are therefore at most 2.25 times
//! the optimum plus 84 b1. With a maximum `P` below `b` the factor is `1.125 * (1 + b / P)`.

use core::time::Duration;

use crate::explore::{Explorer, Seen};
use crate::kick_share::KickShare;
use crate::ladder::{LEVELS, Ladder, UNIT};
use crate::latency::Latency;
use crate::params::saturating_ns;
use crate::{Effective, Iteration, PollParams};

/// The largest difference to the best time, in units. The limit lets a time become the best again soon after a long bad period.
const MOST_BEHIND: i16 = 8192;
/// Each update of a bank removes a part of its values: one in two to this power.
const DECAY: u32 = 8;
/// The advantage of the safe time at the start.
const HEAD_START: i16 = 256;
/// The mask of a time's index, which the search for the minimum stores in the low bits of the time's value.
const NUMBER: i16 = (LEVELS - 1) as i16;
/// The limits between the classes of waits and of their mean, in units.
const WAIT_CLASSES: [i32; 3] = [256, 1024, 4096];
const MEAN_CLASSES: [i32; 3] = [512, 1024, 2048];
/// The deficit above which the clamp chooses the time; then the least deficit. In units.
const DEFICIT_MOST: i64 = 16 * UNIT as i64;
const DEFICIT_LEAST: i64 = -64 * UNIT as i64;

/// Counters of a learned policy, for diagnosis.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, Learned, PollParams, PollPolicy};
///
/// let us = Duration::from_micros;
/// let mut policy = Learned::new(PollParams::unlimited());
/// // The loop slept, and woke up in less than the latency of a sleep.
/// policy.observe(Iteration::new(us(11), us(10), true, false));
/// assert_eq!(policy.counts().ready_now, 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sleeps that ended at once, because the event came between the last check and the sleep. The policy ignores them.
    pub ready_now: u64,
    /// Waits after which the clamp chose the polling time.
    pub guarded: u64,
}

/// The policy with `BANKS` banks: 4 for the handler, times 4 for the mean, times 4 for each previous wait; at most 256.
#[derive(Clone, Debug)]
pub(crate) struct Rcl<const BANKS: usize> {
    banks: [[i16; LEVELS]; BANKS],
    best: [u8; BANKS],
    /// The selected bank.
    context: u8,
    /// The classes of the last waits, two bits each.
    history: u8,
    /// The moving mean in units, times 16.
    mean: i32,
    current: u8,
    deficit: i64,
    off: bool,
    latency: Latency,
    explorer: Explorer,
    kicks: KickShare,
    ladder: Ladder,
    params: PollParams,
    counts: Counts,
}

impl<const BANKS: usize> Rcl<BANKS> {
    const HISTORY: u8 = (BANKS / 16 - 1) as u8;
    /// A wait counts for one part in two to this power. With more history the mean covers a longer time.
    const MEAN_SHIFT: u32 = if BANKS == 64 { 1 } else { 3 };

    pub(crate) fn new(params: PollParams) -> Self {
        let ladder = Ladder::new(&params);
        let mut bank = [HEAD_START; LEVELS];
        bank[usize::from(ladder.safe)] = 0;
        Self {
            banks: [bank; BANKS],
            best: [ladder.safe; BANKS],
            context: 0,
            history: 0,
            mean: 0,
            current: ladder.safe,
            deficit: 0,
            off: params.max.is_zero(),
            latency: Latency::new(&params),
            explorer: Explorer::default(),
            kicks: KickShare::default(),
            ladder,
            params,
            counts: Counts::default(),
        }
    }

    /// Adopts another cost of a sleep. The learned values stay: they are in units of that cost.
    pub(crate) fn reprice(&mut self, params: PollParams) {
        self.ladder = Ladder::new(&params);
        self.ladder.price(self.kicks.share());
        self.latency = Latency::new(&params);
        self.off = params.max.is_zero();
        self.params = params;
    }

    pub(crate) fn budget(&self) -> Duration {
        self.ladder.times[usize::from(self.current & NUMBER as u8)]
    }

    /// Returns the budget, or `deadline` if it is nearer than the break-even time, because polling until then
    /// always costs less than a sleep.
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
        if let (true, Some(kicks)) = (seen.blocked, seen.kicks)
            && let Some(share) = self.kicks.slept(kicks)
        {
            self.ladder.price(share);
        }
        let best = self.learn(wait);
        self.best[usize::from(self.context)] = best;
        self.remember(wait, seen.source);
        self.current = if self.deficit > DEFICIT_MOST {
            self.counts.guarded += 1;
            self.explorer.stop();
            self.ladder.safe
        } else {
            let best = self.best[usize::from(self.context)];
            let seen = Seen {
                wait,
                elapsed: self.ladder.to_units(saturating_ns(seen.elapsed)),
                slept: seen.blocked && !seen.timed_out,
                kicked: seen.kicks.is_some_and(|kicks| kicks > 0),
            };
            self.explorer.next(best, seen, &self.ladder)
        };
    }

    /// Returns the wait and the polling time, in units. `None` if the sleep ended at once.
    fn measure(&mut self, seen: &Iteration) -> Option<(i16, i16)> {
        // The distance of a timer does not depend on the delay of the loop.
        let elapsed = match seen.deadline {
            Some(deadline) if seen.timed_out => deadline.min(seen.elapsed),
            _ => seen.elapsed,
        };
        let elapsed = saturating_ns(elapsed);
        let level = self.ladder.units[usize::from(self.current & NUMBER as u8)];
        if seen.blocked {
            let spun = saturating_ns(seen.spun);
            // A ceiling or a near timer may have ended polling early.
            let spun_units = self.ladder.to_units(spun).min(level);
            let late = if seen.timed_out {
                0 // the timer was due anyway
            } else {
                self.latency.of_sleep(elapsed.saturating_sub(spun))?
            };
            let wait = self.ladder.to_units(elapsed.saturating_sub(late));
            Some((wait.max(spun_units + 1), spun_units))
        } else {
            let wait = self.ladder.to_units(elapsed);
            let prolonged = seen.deadline.is_some_and(|deadline| deadline <= self.ladder.near);
            // The round with the hit may have ended after the polling time.
            let wait = if prolonged { wait } else { wait.min(level) };
            Some((wait, wait))
        }
    }

    /// Adds the cost of this wait to the deficit.
    fn account(&mut self, wait: i16, spun: i16, blocked: bool) {
        let sleep = i64::from(self.ladder.sleep);
        let cost = i64::from(spun) + if blocked { sleep } else { 0 };
        let optimum = i64::from(wait).min(sleep);
        self.deficit = (self.deficit + cost - ((self.ladder.bound * optimum) >> 10)).max(DEFICIT_LEAST);
    }

    /// Adds the cost of each polling time to the selected bank. Returns its best time now.
    fn learn(&mut self, wait: i16) -> u8 {
        let bank = &mut self.banks[usize::from(self.context) & (BANKS - 1)];
        let mut least = i16::MAX;
        for (level, units) in self.ladder.units.iter().enumerate() {
            let slept = if wait > *units { self.ladder.sleep } else { 0 };
            let behind = bank[level] - (bank[level] >> DECAY) + wait.min(*units) + slept;
            bank[level] = behind;
            least = least.min((behind & !NUMBER) | level as i16);
        }
        for behind in bank {
            *behind = (*behind - (least & !NUMBER)).min(MOST_BEHIND);
        }
        (least & NUMBER) as u8
    }

    /// Selects the next bank.
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

#[cfg(test)]
#[path = "rcl_tests.rs"]
mod tests;
