//! [`Explorer`]: occasionally polls a few waits for longer than has paid recently, to find out whether the
//! peer becomes faster.
//!
//! A learned policy takes waits as given. A peer may be slow *because* the loop sleeps:
//!
//! - A client falls asleep before it receives a late answer. Its next request comes only after it has woken
//!   up, too late for the loop's polling. Each side adapts to the other, and both are several times slower
//!   than if neither slept.
//! - A client kicks only after it has dealt with all its answers. Polling would find its first request much
//!   sooner.
//! - While both sides sleep, the processor falls idle. A wake-up then takes several times as long as one that
//!   was measured beside a running peer.
//!
//! # Trials
//! Each sleep earns a small credit, one part in [`EARNED`] of its cost, if its wait was no longer than a peer
//! needs to wake up and work ([`FAR`]), or if a kick has ended it. When the credit covers the worst case, the
//! explorer polls up to [`RUN`] waits, each for the length of the last sleep. It pays the additional cost
//! from the credit. If the peer becomes faster, the policy learns that like everything else; otherwise less
//! than one percent is lost. The limit of the deficit in the policy has precedence over the explorer.
//!
//! # Success
//! A trial whose waits were all caught is compared with the sleeps before it, by measurements of both. Let
//! `p` be the longest wait of the second half of the trial, and `e` the shortest sleep before it, wake-up
//! included. A sleep then costs `e - p` of latency, independent of its nominal latency. If that, with the
//! processor time and the kick of a sleep, is more than `p`, the explorer goes on polling for at most
//! [`LEAST_HOLD`] waits, and for four times as many after each further success. A sleep, or a wait of more
//! than `2 p`, ends that. If it has lasted, the credit is full again: the next trial needs only [`CALM`]
//! sleeps, from which `e` is measured again. If waits do not depend on the loop, all waits of a trial are
//! almost never shorter than all before it; if they are by chance, the next long wait costs no more than a
//! trial.

use crate::ladder::{LEVELS, Ladder, UNIT};

/// The divisor of the break-even time that a sleep earns.
const EARNED: i32 = 256;
/// Waits of this many units or more are not answers of a peer that wakes up. (Below the limit at which waits are clipped.)
const FAR: i16 = 7 * UNIT as i16;
/// The time that is tried after such a wait if a kick has ended it, as its index.
const LEVEL_OF_FAR: u8 = LEVELS as u8 - 1;
/// The number of credit steps in a unit.
const SCALE: i32 = EARNED / 4;
/// The number of waits in a row that are polled for longer: a peer needs some fast answers to stay awake.
const RUN: u8 = 8;
/// The largest credit, enough for one run.
const MOST: i32 = 12 * UNIT as i32 * SCALE;
/// The least number of sleeps between two trials.
const CALM: u8 = 8;
/// The number of these sleeps that do not count at first: the peer may still be quick.
const SETTLING: u8 = 2;
/// The number of waits that are polled for after a success.
const LEAST_HOLD: u32 = 1 << 12;
const MOST_HOLD: u32 = 1 << 18;
/// The number of waits after which a success was not by chance.
const LASTING: u32 = 1 << 6;
/// The margin by which a trial must be better: one part in two to this power.
const MARGIN: u32 = 3;

/// The explorer's observation of a wait, in units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The wait without the wake-up.
    pub(crate) wait: i16,
    /// The wait with the wake-up.
    pub(crate) elapsed: i16,
    /// Set if the loop slept, and no timer has ended that.
    pub(crate) slept: bool,
    /// Set if a peer has kicked because the loop slept.
    pub(crate) kicked: bool,
}

/// Decides whether to try a time other than the one that has paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explorer {
    /// In units times [`SCALE`].
    credit: i32,
    /// The remaining waits of the run, or of the time after a success.
    left: u32,
    /// The longest wait of the second half of the run, in units.
    longest: i16,
    /// The number of waits that are polled for after the next success.
    hold: u32,
    is_holding: bool,
    /// The number of sleeps until the next run may begin.
    calm: u8,
    /// The shortest sleep since the last run, with its wake-up, in units.
    least: i16,
    /// The time that is tried, as its index.
    level: u8,
    /// The time that would be used without the run, as its index.
    instead_of: u8,
}

impl Default for Explorer {
    /// Starts with full credit, so that a loop beside a slow peer soon finds out.
    fn default() -> Self {
        Self {
            credit: MOST,
            left: 0,
            longest: 0,
            hold: LEAST_HOLD,
            is_holding: false,
            calm: CALM,
            least: i16::MAX,
            level: 0,
            instead_of: 0,
        }
    }
}

/// Returns the cost of a wait with a polling time of `units`.
fn cost(wait: i16, units: i16) -> i32 {
    if wait > units {
        i32::from(units) + UNIT as i32
    } else {
        i32::from(wait)
    }
}

impl Explorer {
    /// Returns the index of the time for the next wait. `best` has paid recently.
    #[inline]
    pub(crate) fn next(&mut self, best: u8, seen: Seen, ladder: &Ladder) -> u8 {
        let units = |level: u8| ladder.units[usize::from(level) & (LEVELS - 1)];
        if self.left > 0 {
            self.tried(seen, ladder);
        } else if seen.slept {
            if self.calm <= CALM - SETTLING {
                self.least = self.least.min(seen.elapsed);
            }
            self.calm = self.calm.saturating_sub(1);
            if seen.wait < FAR || seen.kicked {
                self.credit = (self.credit + UNIT as i32 * SCALE / EARNED).min(MOST);
                if self.calm == 0 {
                    self.begin(seen.wait, &ladder.units);
                }
            }
        }
        self.instead_of = best;
        if self.left == 0 || units(self.level) <= units(best) {
            // The policy itself polls as long, so nothing is tried. The time after a success goes on.
            if !self.is_holding {
                self.left = 0;
            }
            return best;
        }
        if !self.is_holding && !self.affords(units(self.level)) {
            self.end();
            return best;
        }
        self.level
    }

    /// Ends the run.
    pub(crate) fn stop(&mut self) {
        self.end();
    }

    fn end(&mut self) {
        (self.left, self.is_holding) = (0, false);
        (self.calm, self.least) = (CALM, i16::MAX);
    }

    /// Accounts for a wait of a run.
    fn tried(&mut self, seen: Seen, ladder: &Ladder) {
        if self.is_holding {
            self.left -= 1;
            if self.left & (LASTING - 1) == 0 {
                self.credit = MOST;
            }
            if seen.slept || self.left == 0 || seen.wait > self.longest.saturating_mul(2) {
                self.end();
            }
            return;
        }
        let units = |level: u8| ladder.units[usize::from(level) & (LEVELS - 1)];
        let lost = cost(seen.wait, units(self.level)) - cost(seen.wait, units(self.instead_of));
        self.credit -= lost.max(0) * SCALE;
        if seen.slept {
            return self.end();
        }
        self.left -= 1;
        if self.left < u32::from(RUN / 2) {
            self.longest = self.longest.max(seen.wait);
        }
        if self.left == 0 {
            self.judge(ladder);
        }
    }

    /// Compares a run whose waits were all caught with the sleeps before it.
    fn judge(&mut self, ladder: &Ladder) {
        let (polled, before) = (i32::from(self.longest), i32::from(self.least));
        let gained = ladder.of_latency(before - polled) + i32::from(ladder.sleep) - ladder.latency;
        self.end();
        if gained - (gained >> MARGIN) <= polled {
            self.hold = LEAST_HOLD;
            return;
        }
        (self.left, self.is_holding) = (self.hold, true);
        self.hold = (self.hold << 2).min(MOST_HOLD);
    }

    /// Starts a run with the shortest time that would have covered `wait`, or the longest time, if the credit allows it.
    fn begin(&mut self, wait: i16, levels: &[i16; LEVELS]) {
        let level = if wait < FAR {
            levels.partition_point(|units| *units < wait).min(LEVELS - 1) as u8
        } else {
            LEVEL_OF_FAR
        };
        // Once for the worst case of the next wait, and twice for a run without a gain.
        if self.affords(levels[usize::from(level)].saturating_mul(3)) {
            (self.level, self.left) = (level, u32::from(RUN));
            self.longest = 0;
        }
    }

    /// Returns whether the credit covers the worst case, a wait that outlasts the time, so that the time is
    /// lost.
    fn affords(&self, units: i16) -> bool {
        self.credit >= i32::from(units) * SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PollParams, WakeCost};
    use core::time::Duration;

    const LEVELS_OF_B: [i16; LEVELS] = [0, 128, 256, 430, 716, 1024, 1638, 3276];
    /// The latency of a sleep, four fifths of a break-even time.
    const LATE: i16 = 819;

    fn ladder() -> Ladder {
        let wake = WakeCost::of_total(Duration::from_micros(10));
        let ladder = Ladder::new(&PollParams::unlimited().with_wake(wake));
        assert_eq!((ladder.units, ladder.latency), (LEVELS_OF_B, i32::from(LATE)));
        ladder
    }

    fn seen(wait: i16, slept: bool) -> Seen {
        Seen {
            wait,
            elapsed: if slept {
                wait.saturating_add(LATE).min(8192)
            } else {
                wait
            },
            slept,
            kicked: false,
        }
    }

    /// Runs waits that the policy considers not worth polling for. Returns the excess cost, and the number of
    /// waits that were polled for all the same.
    fn pass(waits: impl Iterator<Item = Seen>) -> (i32, usize) {
        let (ladder, mut explorer) = (ladder(), Explorer::default());
        let (mut level, mut excess, mut runs) = (0u8, 0, 0);
        for one in waits {
            let units = LEVELS_OF_B[usize::from(level)];
            excess += cost(one.wait, units) - cost(one.wait, 0);
            runs += usize::from(level != 0);
            let slept = one.wait > units;
            let elapsed = if slept { one.elapsed } else { one.wait };
            let kicked = one.kicked && slept;
            level = explorer.next(
                0,
                Seen {
                    slept,
                    elapsed,
                    kicked,
                    ..one
                },
                &ladder,
            );
        }
        (excess, runs)
    }

    #[test]
    fn longer_levels_are_tried_and_cost_less_than_one_part_in_two_hundred() {
        for wait in [1300, 1638, 2000, 3276, 7167] {
            let waits = 100_000;
            let (excess, tried) = pass((0..waits).map(|_| seen(wait, true)));
            assert!(tried >= 16, "{wait}: tried {tried} times");
            assert!(excess * 200 <= waits * UNIT as i32, "{wait}: {excess}");
        }
    }

    #[test]
    fn waits_far_beyond_the_levels_are_never_tried() {
        let far = (0..100_000).map(|_| seen(7168, true));
        assert_eq!(pass(far), (0, 0));
    }

    #[test]
    fn a11_far_waits_that_a_kick_ends_are_tried_at_the_same_price() {
        let waits = 100_000;
        let far = (0..waits).map(|_| Seen {
            kicked: true,
            ..seen(8192, true)
        });
        let (excess, tried) = pass(far);
        assert!(tried >= 16, "tried {tried} times");
        assert!(excess * 200 <= waits * UNIT as i32, "{excess}");
    }

    #[test]
    fn a_peer_that_stays_away_when_it_is_tried_costs_no_more() {
        // The event comes soon without polling, and late with it.
        let (ladder, mut explorer) = (ladder(), Explorer::default());
        let (mut level, mut excess) = (0u8, 0i64);
        let waits = 100_000;
        for _ in 0..waits {
            let units = LEVELS_OF_B[usize::from(level)];
            let wait = if level == 0 { 1500 } else { 8000 };
            excess += i64::from(cost(wait, units) - cost(wait, 0));
            level = explorer.next(0, seen(wait, true), &ladder);
        }
        assert!(excess > 0 && excess * 200 <= waits * i64::from(UNIT), "{excess}");
    }

    /// Runs waits of a peer that needs `slow` if the loop slept before, and `quick` otherwise. Returns the
    /// number of sleeps.
    fn sleeps_beside(slow: i16, quick: i16, best: u8, waits: usize) -> usize {
        let (ladder, mut explorer) = (ladder(), Explorer::default());
        let (mut level, mut sleeps, mut slept) = (best, 0, true);
        for _ in 0..waits {
            let wait = if slept { slow } else { quick };
            slept = wait > LEVELS_OF_B[usize::from(level)];
            sleeps += usize::from(slept);
            level = explorer.next(best, seen(wait, slept), &ladder);
        }
        sleeps
    }

    #[test]
    fn a11_a_sleep_that_is_dearer_than_its_price_is_found_by_measurement() {
        // While both sleep, each needs two break-even times more to wake up. Beside a peer that polls, the
        // wait of 1.1 break-even times costs more than the nominal sleep, and much less than the measured
        // one.
        let sleeps = sleeps_beside(3100, 1126, 0, 100_000);
        assert!(sleeps < 2_000, "{sleeps}");
    }

    #[test]
    fn a11_a_sleep_that_costs_what_it_should_is_left_alone() {
        // The wait does not depend on the loop: 1.3 break-even times are worth a sleep.
        let sleeps = sleeps_beside(1331, 1331, 0, 100_000);
        assert!(sleeps > 98_000, "{sleeps}");
    }

    #[test]
    fn a11_a_success_by_chance_costs_no_more_than_a_trial() {
        // Now and then short waits come in a row, so that a trial succeeds; longer ones follow. The peer does not react.
        let (ladder, waits) = (ladder(), 100_000usize);
        let (mut explorer, mut level, mut excess) = (Explorer::default(), 0u8, 0i64);
        for number in 0..waits {
            let wait = if number % 40 < 20 { 3200 } else { 900 };
            let units = LEVELS_OF_B[usize::from(level)];
            excess += i64::from(cost(wait, units) - cost(wait, 0)).max(0);
            level = explorer.next(0, seen(wait, wait > units), &ladder);
        }
        assert!(excess * 100 <= waits as i64 * i64::from(UNIT), "{excess}");
    }

    /// Returns an explorer that has begun a run for waits of this length, and its level.
    fn in_a_run(wait: i16) -> (Explorer, u8) {
        let (ladder, mut explorer) = (ladder(), Explorer::default());
        loop {
            let level = explorer.next(0, seen(wait, true), &ladder);
            if level != 0 {
                return (explorer, level);
            }
        }
    }

    #[test]
    fn a_run_ends_when_the_policy_itself_goes_further() {
        let (mut explorer, level) = in_a_run(1500);
        assert_eq!(level, 6);
        assert_eq!(explorer.next(7, seen(1500, false), &ladder()), 7);
        assert_eq!(explorer.next(0, seen(1500, false), &ladder()), 0);
    }

    #[test]
    fn a_run_begins_with_the_first_rung_that_catches_the_wait_and_ends_when_stopped() {
        let (mut explorer, level) = in_a_run(1638);
        assert_eq!(level, 6, "1638 units catch a wait of 1638");
        assert_eq!(cost(1638, 1638), 1638);
        explorer.stop();
        assert_eq!(explorer.next(0, seen(1638, false), &ladder()), 0);
    }
}
