//! [`Explorer`]: now and then a few waits are polled for longer than has paid lately, to see what the peer makes of it.
//!
//! A learned policy takes waits as given. But who waits for us may sleep *because* we do: a client that gets its answer late
//! has gone to sleep meanwhile, its next request comes after it was woken, and that is too late for us to have polled for.
//! Each side is right as long as the other one stays as it is, and both are several times slower than if neither slept.
//! What such waits look like is known: some break-even times. They are as long as the peer takes to wake up and to do what
//! it does, and a peer that tells us only when it has done all of it seems to be later than it is.
//!
//! So each sleep of that kind earns a small credit, one part in [`EARNED`] of what it cost. When that is enough for the worst that can come
//! of it, up to [`RUN`] waits are polled for as long as it takes to catch the last one. What they cost beyond the choice that
//! had paid is taken from the credit. If the peer becomes quicker, the policy learns that as it learns everything; if not, less than
//! one percent is lost. It decides nothing by itself: the guard of the policy is above it.

use crate::ladder::{RUNGS, UNIT};

/// A sleep earns one part in this of a break-even time.
const EARNED: i32 = 256;
/// Waits of so many units, or more, are no answer of a peer that is woken. (Below where waits are clipped.)
const FAR: i16 = 7 * UNIT as i16;
/// Credit is kept in parts of a unit.
const SCALE: i32 = EARNED / 4;
/// So many waits in a row are polled for longer: a peer needs some quick answers to stay awake.
const RUN: u8 = 8;
/// More credit than for one run is not kept.
const MOST: i32 = 8 * UNIT as i32 * SCALE;

/// Whether to try something else than what has paid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Explorer {
    /// In units times [`SCALE`].
    credit: i32,
    /// Waits left of the run.
    left: u8,
    /// The rung that is tried.
    rung: u8,
    /// The rung that would have been used.
    instead_of: u8,
}

/// What a wait of so many units costs with a rung.
fn cost(wait: i16, units: i16) -> i32 {
    if wait > units {
        i32::from(units) + UNIT as i32
    } else {
        i32::from(wait)
    }
}

impl Explorer {
    /// The rung for the next wait, where `best` has paid lately, after one of `wait` units that ended with a sleep or not.
    pub(crate) fn next(&mut self, best: u8, wait: i16, slept: bool, rungs: &[i16; RUNGS]) -> u8 {
        let units = |rung: u8| rungs[usize::from(rung) & (RUNGS - 1)];
        if self.left > 0 {
            let lost = cost(wait, units(self.rung)) - cost(wait, units(self.instead_of));
            self.credit -= lost.max(0) * SCALE;
            self.left = if slept { 0 } else { self.left - 1 };
        } else if slept && wait < FAR {
            self.credit = (self.credit + UNIT as i32 * SCALE / EARNED).min(MOST);
            self.begin(wait, rungs);
        }
        self.instead_of = best;
        if self.left == 0 || units(self.rung) <= units(best) || !self.affords(units(self.rung)) {
            self.left = 0;
            return best;
        }
        self.rung
    }

    /// Gives a run up.
    pub(crate) fn stop(&mut self) {
        self.left = 0;
    }

    /// Begins a run with the first rung that would have caught `wait`, or the last one, if there is credit for it.
    fn begin(&mut self, wait: i16, rungs: &[i16; RUNGS]) {
        let rung = rungs.partition_point(|units| *units < wait).min(RUNGS - 1);
        // Once for the worst that can come of the next wait, and once for a few waits that were not worth it.
        if self.affords(rungs[rung].saturating_mul(2)) {
            (self.rung, self.left) = (rung as u8, RUN);
        }
    }

    /// The worst case is a wait that comes after all: it costs the rung in vain.
    fn affords(&self, units: i16) -> bool {
        self.credit >= i32::from(units) * SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNGS_OF_B: [i16; RUNGS] = [0, 128, 256, 430, 716, 1024, 1638, 3276];

    /// Lets waits pass of which the policy thinks that none is worth polling for; what that cost in excess, and how many were
    /// polled for all the same.
    fn pass(explorer: &mut Explorer, waits: impl Iterator<Item = i16>) -> (i32, usize) {
        let (mut rung, mut excess, mut runs) = (0u8, 0, 0);
        for wait in waits {
            let units = RUNGS_OF_B[usize::from(rung)];
            excess += cost(wait, units) - cost(wait, 0);
            runs += usize::from(rung != 0);
            rung = explorer.next(0, wait, wait > units, &RUNGS_OF_B);
        }
        (excess, runs)
    }

    #[test]
    fn what_is_out_of_reach_is_tried_and_costs_less_than_one_part_in_two_hundred() {
        for wait in [1025, 1300, 1638, 2000, 3276, 7167] {
            let waits = 100_000;
            let (excess, tried) = pass(&mut Explorer::default(), (0..waits).map(|_| wait));
            assert!(tried >= 16, "{wait}: tried {tried} times");
            assert!(excess * 200 <= waits * UNIT as i32, "{wait}: {excess}");
        }
    }

    #[test]
    fn what_is_far_away_is_never_tried() {
        let far = (0..100_000).map(|_| 7168);
        assert_eq!(pass(&mut Explorer::default(), far), (0, 0));
    }

    #[test]
    fn a_peer_that_stays_away_when_it_is_tried_costs_no_more() {
        // It comes soon as long as nobody polls, and late as soon as somebody does.
        let mut explorer = Explorer::default();
        let (mut rung, mut excess) = (0u8, 0i64);
        let waits = 100_000;
        for _ in 0..waits {
            let units = RUNGS_OF_B[usize::from(rung)];
            let wait = if rung == 0 { 1500 } else { 8000 };
            excess += i64::from(cost(wait, units) - cost(wait, 0));
            rung = explorer.next(0, wait, true, &RUNGS_OF_B);
        }
        assert!(excess > 0 && excess * 200 <= waits * i64::from(UNIT), "{excess}");
    }

    /// One that has begun to explore for waits of such a length, and its rung.
    fn in_a_run(wait: i16) -> (Explorer, u8) {
        let mut explorer = Explorer::default();
        loop {
            let rung = explorer.next(0, wait, true, &RUNGS_OF_B);
            if rung != 0 {
                return (explorer, rung);
            }
        }
    }

    #[test]
    fn a_run_ends_when_the_policy_itself_goes_further() {
        let (mut explorer, rung) = in_a_run(1500);
        assert_eq!(rung, 6);
        assert_eq!(explorer.next(7, 1500, false, &RUNGS_OF_B), 7);
        assert_eq!(explorer.next(0, 1500, false, &RUNGS_OF_B), 0);
    }

    #[test]
    fn a_run_begins_with_the_first_rung_that_catches_the_wait_and_ends_when_stopped() {
        let (mut explorer, rung) = in_a_run(1638);
        assert_eq!(rung, 6, "1638 units catch a wait of 1638");
        assert_eq!(cost(1638, 1638), 1638);
        explorer.stop();
        assert_eq!(explorer.next(0, 1638, false, &RUNGS_OF_B), 0);
    }
}
