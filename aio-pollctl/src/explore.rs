//! [`Explorer`]: occasionally polls a few waits for longer than has paid recently, to find out whether the peer becomes faster.
//!
//! A learned policy takes waits as given. A peer may sleep *because* the loop sleeps: a client falls asleep before it receives a
//! late answer, and its next request comes only after it has woken up, too late for the loop's polling. Each side adapts to the
//! other, and both are several times slower than if neither slept. Such waits take a few break-even times: the peer wakes up and
//! does its work. A peer that notifies only at the end of its work appears even later.
//!
//! Each sleep of this length earns a small credit, one part in [`EARNED`] of its cost. When the credit covers the worst case, the
//! explorer polls up to [`RUN`] waits for as long as the last of them took. It pays the additional cost from the credit. If the
//! peer becomes faster, the policy learns that as it learns everything; otherwise less than one percent is lost. The limit of the
//! deficit in the policy has precedence over the explorer.

use crate::ladder::{LEVELS, UNIT};

/// A sleep earns a break-even time divided by this.
const EARNED: i32 = 256;
/// Waits of this many units or more are not answers of a peer that wakes up. (Below the limit at which waits are clipped.)
const FAR: i16 = 7 * UNIT as i16;
/// The number of credit steps in a unit.
const SCALE: i32 = EARNED / 4;
/// The number of waits in a row that are polled for longer: a peer needs some fast answers to stay awake.
const RUN: u8 = 8;
/// The largest credit, enough for one run.
const MOST: i32 = 8 * UNIT as i32 * SCALE;

/// Decides whether to try another time than the one that has paid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Explorer {
    /// In units times [`SCALE`].
    credit: i32,
    /// Waits left of the run.
    left: u8,
    /// The time that is tried, as its index.
    level: u8,
    /// The time that would have been used, as its index.
    instead_of: u8,
}

/// The cost of a wait with a polling time of `units`.
fn cost(wait: i16, units: i16) -> i32 {
    if wait > units {
        i32::from(units) + UNIT as i32
    } else {
        i32::from(wait)
    }
}

impl Explorer {
    /// The index of the time for the next wait. `best` has paid recently; the last wait took `wait` units, and perhaps a sleep.
    pub(crate) fn next(&mut self, best: u8, wait: i16, slept: bool, levels: &[i16; LEVELS]) -> u8 {
        let units = |level: u8| levels[usize::from(level) & (LEVELS - 1)];
        if self.left > 0 {
            let lost = cost(wait, units(self.level)) - cost(wait, units(self.instead_of));
            self.credit -= lost.max(0) * SCALE;
            self.left = if slept { 0 } else { self.left - 1 };
        } else if slept && wait < FAR {
            self.credit = (self.credit + UNIT as i32 * SCALE / EARNED).min(MOST);
            self.begin(wait, levels);
        }
        self.instead_of = best;
        if self.left == 0 || units(self.level) <= units(best) || !self.affords(units(self.level)) {
            self.left = 0;
            return best;
        }
        self.level
    }

    /// Ends the run.
    pub(crate) fn stop(&mut self) {
        self.left = 0;
    }

    /// Starts a run with the shortest time that would have covered `wait`, or the longest time, if the credit allows it.
    fn begin(&mut self, wait: i16, levels: &[i16; LEVELS]) {
        let level = levels.partition_point(|units| *units < wait).min(LEVELS - 1);
        // Once for the worst case of the next wait, and once for a few waits without a gain.
        if self.affords(levels[level].saturating_mul(2)) {
            (self.level, self.left) = (level as u8, RUN);
        }
    }

    /// The worst case is a wait that outlasts the time: the time is lost.
    fn affords(&self, units: i16) -> bool {
        self.credit >= i32::from(units) * SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS_OF_B: [i16; LEVELS] = [0, 128, 256, 430, 716, 1024, 1638, 3276];

    /// Runs waits that the policy considers not worth polling for. Returns the excess cost, and how many were
    /// polled for all the same.
    fn pass(explorer: &mut Explorer, waits: impl Iterator<Item = i16>) -> (i32, usize) {
        let (mut level, mut excess, mut runs) = (0u8, 0, 0);
        for wait in waits {
            let units = LEVELS_OF_B[usize::from(level)];
            excess += cost(wait, units) - cost(wait, 0);
            runs += usize::from(level != 0);
            level = explorer.next(0, wait, wait > units, &LEVELS_OF_B);
        }
        (excess, runs)
    }

    #[test]
    fn longer_levels_are_tried_and_cost_less_than_one_part_in_two_hundred() {
        for wait in [1025, 1300, 1638, 2000, 3276, 7167] {
            let waits = 100_000;
            let (excess, tried) = pass(&mut Explorer::default(), (0..waits).map(|_| wait));
            assert!(tried >= 16, "{wait}: tried {tried} times");
            assert!(excess * 200 <= waits * UNIT as i32, "{wait}: {excess}");
        }
    }

    #[test]
    fn waits_far_beyond_the_levels_are_never_tried() {
        let far = (0..100_000).map(|_| 7168);
        assert_eq!(pass(&mut Explorer::default(), far), (0, 0));
    }

    #[test]
    fn a_peer_that_stays_away_when_it_is_tried_costs_no_more() {
        // The event comes soon without polling, and late with it.
        let mut explorer = Explorer::default();
        let (mut level, mut excess) = (0u8, 0i64);
        let waits = 100_000;
        for _ in 0..waits {
            let units = LEVELS_OF_B[usize::from(level)];
            let wait = if level == 0 { 1500 } else { 8000 };
            excess += i64::from(cost(wait, units) - cost(wait, 0));
            level = explorer.next(0, wait, true, &LEVELS_OF_B);
        }
        assert!(excess > 0 && excess * 200 <= waits * i64::from(UNIT), "{excess}");
    }

    /// One that has begun to explore for waits of such a length, and its level.
    fn in_a_run(wait: i16) -> (Explorer, u8) {
        let mut explorer = Explorer::default();
        loop {
            let level = explorer.next(0, wait, true, &LEVELS_OF_B);
            if level != 0 {
                return (explorer, level);
            }
        }
    }

    #[test]
    fn a_run_ends_when_the_policy_itself_goes_further() {
        let (mut explorer, level) = in_a_run(1500);
        assert_eq!(level, 6);
        assert_eq!(explorer.next(7, 1500, false, &LEVELS_OF_B), 7);
        assert_eq!(explorer.next(0, 1500, false, &LEVELS_OF_B), 0);
    }

    #[test]
    fn a_run_begins_with_the_first_rung_that_catches_the_wait_and_ends_when_stopped() {
        let (mut explorer, level) = in_a_run(1638);
        assert_eq!(level, 6, "1638 units catch a wait of 1638");
        assert_eq!(cost(1638, 1638), 1638);
        explorer.stop();
        assert_eq!(explorer.next(0, 1638, false, &LEVELS_OF_B), 0);
    }
}
