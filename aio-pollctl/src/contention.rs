//! [`Contention`]: whether polling is suspended because the thread has to share its core.

use core::time::Duration;

/// A polling loop that reads its clock twice within a round did not run in between if that took longer.
const GAP_NS: u64 = ms(1);
/// A longer gap is no turn of another thread, but a quota that is used up. It comes again soon.
const QUOTA_NS: u64 = ms(8);
const QUOTA_PAUSES: u64 = 16;
/// The longest pause after gaps, as a multiple of the gap.
const MOST_GAPS: u64 = 128;
/// Another thread has run if a search took so much less processor time than time. Interrupts are shorter.
const TURN_NS: u64 = 4_000;
/// The first pause after a turn of another thread. Each further turn doubles it, up to this power of two.
const TURN_PAUSE_NS: u64 = ms(2);
const MOST_DOUBLINGS: u16 = 9;
/// A turn counts as much as so many searches without one.
const TURN_WEIGHT: u16 = 200;
/// The next gap within this many pauses is a repetition.
const SOON: u64 = 8;
/// The number of searches that may find nothing. From then on, one in 256 is made.
const MOST_MISSES: u8 = 64;
/// A search that finds something makes up for so many that do not.
const HIT_WEIGHT: u8 = 8;

const fn ms(count: u64) -> u64 {
    count * 1_000_000
}

/// Suspends polling while the thread does not get its core for itself (rule A13).
///
/// Polling uses up what the thread may run: its share of a core that it has in common with its peer, or its quota (cgroup `cpu.max`).
/// When that is used up, the thread stands still, with all its requests; on a core in common its peer cannot run while it polls. A loop
/// that sleeps instead keeps its share for the requests.
///
/// Three observations tell:
///
/// - *Searches in vain.* If 64 searches have found nothing, and hardly any other has, the peer may need this very core to do anything. From
///   then on the loop searches before one wait of 256, until searches find something again.
/// - *Gaps.* A polling loop reads its clock every few microseconds. A gap of a millisecond between two readings tells that the thread did
///   not run.
/// - *Turns.* One search in 64 is compared with the processor time that it took. If they differ by more than 4 us, another thread has run
///   on this core meanwhile.
///
/// After a gap or a turn polling is suspended for a moment: as long as the gap, 16 times a gap that is so long that it must come from a quota, or two
/// milliseconds. Each repetition soon after the end of a pause doubles the pause, up to 128 times the gap, or a second. So a single gap,
/// which any machine has now and then, costs almost nothing, and repeated ones take less than a hundredth of the time.
///
/// # Examples
/// ```
/// use aio_pollctl::Contention;
///
/// let ms = 1_000_000;
/// let mut contention = Contention::new();
/// contention.read(0, 3 * ms); // two readings of the clock while polling
/// assert!(contention.is_suspended(5 * ms));
/// assert!(!contention.is_suspended(6 * ms));
/// contention.read(7 * ms, 10 * ms);
/// assert!(contention.is_suspended(15 * ms), "twice as long");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Contention {
    /// Polling is suspended until then, in nanoseconds of the loop's clock.
    until_ns: u64,
    pause_ns: u64,
    /// [`TURN_WEIGHT`] for each search with a turn, less one for each without.
    turns: u16,
    /// Searches in vain, less [`HIT_WEIGHT`] for each other.
    misses: u8,
    /// Waits since the last search, while too many were in vain.
    passed: u8,
}

impl Contention {
    /// The part of a search that is not compared with its processor time. To read that costs some 5 % of this time.
    pub const COMPARED_AFTER: Duration = Duration::from_micros(5);

    /// No contention was seen yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            until_ns: 0,
            pause_ns: 0,
            turns: 0,
            misses: 0,
            passed: 0,
        }
    }

    /// Returns whether to search before the next wait, at `now_ns` of the loop's clock. Call it once for each wait, after a first round
    /// that has found nothing.
    #[inline]
    pub const fn is_worth_it(&mut self, now_ns: u64) -> bool {
        if self.is_suspended(now_ns) {
            return false;
        }
        if self.misses < MOST_MISSES {
            return true;
        }
        self.passed = self.passed.wrapping_add(1);
        self.passed == 0
    }

    /// Returns whether polling was ever suspended, or most searches are not made now. If not, [`is_worth_it`](Self::is_worth_it) returns
    /// true at any moment.
    #[inline]
    #[must_use]
    pub const fn was_seen(&self) -> bool {
        self.until_ns != 0 || self.misses >= MOST_MISSES
    }

    /// Records whether a search has found something. Returns whether searches are seldom made from now on.
    #[inline]
    pub const fn found(&mut self, something: bool) -> bool {
        if something {
            self.misses = self.misses.saturating_sub(HIT_WEIGHT);
        } else if self.misses < MOST_MISSES {
            self.misses += 1;
            return self.misses == MOST_MISSES;
        }
        false
    }

    /// Returns whether polling is suspended at `now_ns` of the loop's clock.
    #[inline]
    #[must_use]
    pub const fn is_suspended(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns
    }

    /// Records two successive readings of the clock while the loop polled. Handlers must not have run in between. Returns whether polling
    /// is suspended from now on.
    #[inline]
    pub const fn read(&mut self, before_ns: u64, now_ns: u64) -> bool {
        let gap_ns = now_ns.saturating_sub(before_ns);
        if gap_ns < GAP_NS {
            return false;
        }
        let first_ns = if gap_ns < QUOTA_NS {
            gap_ns
        } else {
            gap_ns.saturating_mul(QUOTA_PAUSES)
        };
        self.suspend(first_ns, gap_ns.saturating_mul(MOST_GAPS), now_ns);
        true
    }

    /// Records the rest of a search that took longer than [`COMPARED_AFTER`](Self::COMPARED_AFTER): its duration, and the processor time
    /// of the thread. Returns whether polling is suspended from now on.
    pub const fn compared(&mut self, took: Duration, cpu: Duration, now_ns: u64) -> bool {
        if took.saturating_sub(cpu).as_nanos() < TURN_NS as u128 {
            self.turns = self.turns.saturating_sub(1);
            return false;
        }
        let doublings = self.turns / TURN_WEIGHT;
        if doublings < MOST_DOUBLINGS {
            self.turns += TURN_WEIGHT;
        }
        let until_ns = now_ns.saturating_add(TURN_PAUSE_NS << doublings);
        if self.until_ns < until_ns {
            self.until_ns = until_ns;
        }
        true
    }

    #[cold]
    const fn suspend(&mut self, first_ns: u64, most_ns: u64, now_ns: u64) {
        let soon_ns = self.until_ns.saturating_add(self.pause_ns.saturating_mul(SOON));
        let is_repetition = self.pause_ns > 0 && now_ns < soon_ns;
        let doubled_ns = if is_repetition {
            self.pause_ns.saturating_mul(2)
        } else {
            0
        };
        let pause_ns = if doubled_ns < first_ns {
            first_ns
        } else {
            doubled_ns
        };
        self.pause_ns = if pause_ns < most_ns { pause_ns } else { most_ns };
        self.until_ns = now_ns.saturating_add(self.pause_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = ms(1);

    /// Polls until `end_ns`, and stands still for `gap_ns` whenever it has polled for `every_ns`. Returns how long it stood still, and
    /// how long it polled.
    fn run(end_ns: u64, every_ns: u64, gap_ns: u64) -> (u64, u64) {
        let mut contention = Contention::new();
        let (mut now, mut stood, mut polled) = (0, 0, 0);
        while now < end_ns {
            if contention.is_suspended(now) {
                now += MS;
                continue;
            }
            now += every_ns;
            polled += every_ns;
            contention.read(now, now + gap_ns);
            now += gap_ns;
            stood += gap_ns;
        }
        (stood, polled)
    }

    #[test]
    fn a13_a_loop_with_a_core_of_its_own_is_left_alone() {
        let mut contention = Contention::new();
        for now in (0..1000 * MS).step_by(50_000) {
            assert!(!contention.read(now, now + 999_999));
            let us = Duration::from_micros;
            assert!(!contention.compared(us(50), us(47), now));
            assert!(!contention.compared(us(50), us(51), now), "clocks differ");
        }
        assert!(!contention.is_suspended(0));
    }

    #[test]
    fn a13_a_quota_stops_polling_for_less_than_a_hundredth_of_the_time() {
        // 20 ms in each 100 ms.
        let hour = 3_600_000 * MS;
        let (stood, _) = run(hour, 20 * MS, 80 * MS);
        assert!(stood < hour / 100, "{stood}");
        // A core that is shared by turns of 3 ms.
        let (stood, _) = run(hour, 3 * MS, 3 * MS);
        assert!(stood < hour / 100, "{stood}");
    }

    #[test]
    fn a13_a_gap_now_and_then_costs_its_own_time_only() {
        let (stood, polled) = run(100_000 * MS, 1000 * MS, 5 * MS);
        assert!(polled > 98_000 * MS, "{polled}");
        assert!(stood <= 500 * MS, "{stood}");
    }

    #[test]
    fn a13_a_peer_on_the_same_core_ends_polling() {
        // The peer has a turn in one of ten searches; in each of the others the loop polls in vain.
        let us = Duration::from_micros;
        let run = |one_in: u64| {
            let mut contention = Contention::new();
            let (mut now, mut searches) = (0, 0);
            while now < 60_000 * MS {
                now += 100_000;
                if !contention.is_suspended(now) {
                    searches += 1;
                    let cpu = if searches % one_in == 0 { 88 } else { 100 };
                    contention.compared(us(100), us(cpu), now);
                }
            }
            searches
        };
        assert!(run(10) < 600_000 / 500, "of 600,000: {}", run(10));
        assert!(run(1000) > 580_000, "now and then costs little: {}", run(1000));
    }

    #[test]
    fn a13_searches_in_vain_become_rare_until_one_finds_something() {
        let mut contention = Contention::new();
        let mut made = 0;
        for _ in 0..64 + 2560 {
            if contention.is_worth_it(0) {
                made += 1;
                contention.found(false);
            }
        }
        assert_eq!(made, 64 + 10);
        assert!(!contention.found(true));
        assert!((0..7).all(|_| contention.is_worth_it(0) && !contention.found(false)));
        assert!(contention.found(false) && !contention.is_worth_it(0));
        assert!((0..8).all(|_| !contention.found(true)));
        assert!((0..63).all(|_| contention.is_worth_it(0) && !contention.found(false)));
    }

    #[test]
    fn a13_before_contention_was_seen_a_search_is_always_worth_it() {
        let mut contention = Contention::new();
        for _ in 0..64 {
            assert!(!contention.was_seen() && contention.is_worth_it(0));
            contention.found(false);
        }
        assert!(contention.was_seen() && !contention.is_worth_it(0));
        contention = Contention::new();
        contention.read(0, 2 * MS);
        assert!(contention.was_seen() && !contention.is_worth_it(3 * MS));
    }

    #[test]
    fn a13_extreme_readings_do_no_harm() {
        let mut contention = Contention::new();
        assert!(contention.read(0, u64::MAX));
        assert!(!contention.is_suspended(u64::MAX), "there is nothing later");
        assert!(!contention.read(u64::MAX, 0), "a clock that goes back");
        assert!(contention.compared(Duration::MAX, Duration::ZERO, u64::MAX));
    }
}
