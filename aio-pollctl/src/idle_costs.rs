//! [`IdleCosts`]: selects the idle sources that a polling loop demotes.

/// The cost of polled sources, and the share that idle ones may take.
///
/// The loop tests two conditions every [`check_every`](Self::check_every) rounds. A source is demoted if both hold:
/// - *Polling it without success has cost as much as its return*, which takes
///   [`idle_after`](Self::idle_after) rounds. A source that is demoted at this moment never costs more than
///   twice the best choice (ski rental). Only rounds before an event of another source count: while no source
///   has events, the polling policy limits the time.
/// - *Idle sources take more than [`idle_share`](Self::idle_share) of a round.* [`surplus`](Self::surplus)
///   returns the number of sources to demote.
///
/// Among 3,200 sources an idle one is demoted after some milliseconds of polling. Two or three idle sources beside a busy one stay.
///
/// ```
/// # use aio_pollctl::IdleCosts;
/// let costs = IdleCosts::default();
/// assert_eq!(costs.idle_after(), 666, "2,000 ns to return, 3 ns for each poll");
/// assert_eq!(costs.surplus(2, 1), 0, "one idle source beside a busy one stays");
/// assert_eq!(costs.surplus(10, 9), 7, "of nine idle ones two stay");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleCosts {
    /// The cost of one `poll` in a long round, in nanoseconds; 0 counts as 1.
    pub poll_ns: u32,
    /// The cost of a round without its polls, in nanoseconds.
    pub round_ns: u32,
    /// The additional cost of an event that arrives by a descriptor and not by a `poll`, in nanoseconds: the peer's notification and a
    /// check of the descriptors.
    pub return_ns: u32,
    /// Idle sources may take one part in this many of a round; 0 counts as 1.
    pub idle_share: u32,
    /// The number of rounds between two tests.
    pub check_every: u32,
}

impl Default for IdleCosts {
    /// Returns the [`TYPICAL`](Self::TYPICAL) costs.
    fn default() -> Self {
        Self::TYPICAL
    }
}

impl IdleCosts {
    /// Typical costs on present processors: 3 ns for a `poll`, 40 ns for a round, 2 us for a return. Idle sources may take a tenth of a
    /// round, tested every 256 rounds.
    pub const TYPICAL: Self = Self {
        poll_ns: 3,
        round_ns: 40,
        return_ns: 2000,
        idle_share: 10,
        check_every: 256,
    };

    /// Returns the number of rounds without success after which a source is idle; at least 1.
    #[must_use]
    pub const fn idle_after(&self) -> u32 {
        at_least_one(self.return_ns / at_least_one(self.poll_ns))
    }

    /// Returns whether the next test is due, `rounds` after the previous one.
    #[inline]
    #[must_use]
    pub const fn is_check_due(&self, rounds: u32) -> bool {
        rounds >= self.check_every
    }

    /// Returns the number of sources to demote, of `idle` sources in a polled set of `all`.
    #[must_use]
    pub const fn surplus(&self, all: usize, idle: usize) -> usize {
        let poll_ns = at_least_one(self.poll_ns) as u128;
        let round_ns = self.round_ns as u128 + poll_ns * all as u128;
        let may_stay = round_ns / (at_least_one(self.idle_share) as u128 * poll_ns);
        if may_stay >= idle as u128 {
            0
        } else {
            idle - may_stay as usize
        }
    }
}

const fn at_least_one(value: u32) -> u32 {
    if value == 0 { 1 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a8_idle_sources_keep_to_their_share() {
        let costs = IdleCosts::TYPICAL;
        assert_eq!(costs.surplus(2, 1), 0, "too cheap to matter");
        assert_eq!(costs.surplus(10, 9), 7);
        for all in [100, 1000, 3200] {
            let stay = all - costs.surplus(all, all);
            assert!(stay * 10 * 3 <= 40 + all * 3);
            assert!((stay + 1) * 10 * 3 > 40 + all * 3, "as many stay as may");
        }
    }

    #[test]
    fn a8_a_return_is_weighed_against_polls() {
        assert_eq!(IdleCosts::TYPICAL.idle_after(), 666);
        let cheap = IdleCosts {
            return_ns: 2,
            ..IdleCosts::TYPICAL
        };
        assert_eq!(cheap.idle_after(), 1);
        assert!(!cheap.is_check_due(255) && cheap.is_check_due(256));
    }

    #[test]
    fn a8_absurd_costs_are_no_fault() {
        let nothing = IdleCosts {
            poll_ns: 0,
            round_ns: 0,
            return_ns: 0,
            idle_share: 0,
            check_every: 0,
        };
        assert_eq!((nothing.idle_after(), nothing.surplus(5, 5)), (1, 0));
        let most = IdleCosts {
            poll_ns: u32::MAX,
            round_ns: u32::MAX,
            return_ns: u32::MAX,
            idle_share: u32::MAX,
            check_every: u32::MAX,
        };
        assert_eq!((most.idle_after(), most.surplus(5, 5)), (1, 5));
        assert_eq!(IdleCosts::TYPICAL.surplus(0, 0), 0);
        let many = IdleCosts::TYPICAL.surplus(usize::MAX, usize::MAX);
        assert_eq!(usize::MAX - many, usize::MAX / 10 + 1);
    }
}
