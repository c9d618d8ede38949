//! [`Contention`]: suspends polling while the thread must share its core.

use core::time::Duration;

use crate::params::saturating_ns;

/// The time between two readings of the clock within a round beyond which the thread did not run in between.
const GAP_NS: u64 = ms(1);
/// The gap beyond which the cause is not a turn of another thread, but a quota that is used up. Such a gap
/// soon repeats.
const QUOTA_NS: u64 = ms(8);
const QUOTA_PAUSES: u64 = 16;
/// The longest pause after gaps, as a multiple of the gap.
const MOST_GAPS: u64 = 128;
/// The difference between the time and the processor time of a search beyond which another thread has run.
/// Interrupts are shorter.
const TURN_NS: u64 = 4_000;
/// The first pause after a turn of another thread. Each further turn doubles it, at most this many times.
const TURN_PAUSE_NS: u64 = ms(2);
const MOST_DOUBLINGS: u16 = 9;
/// The number of searches without a turn that make up for one with a turn.
const TURN_WEIGHT: u16 = 200;
/// The number of pauses within which the next gap counts as a repetition.
const SOON: u64 = 8;
/// The number of searches that may find nothing. After them the loop only probes.
const MOST_MISSES: u8 = 64;
/// The number of searches in vain for which one with a find makes up.
const HIT_WEIGHT: u8 = 8;
/// The waits, and the time, from one probe to the next. At most one of 256 requests waits for a probe, and
/// less than one percent of the time passes in probes.
const PROBE_WAITS: u16 = 256;
const PROBE_SHARE: u64 = 128;
/// The number of searches that are watched after a suspicion.
const WATCHED: u8 = 8;
/// The time for which a core that was found not to be shared counts as the thread's own.
const UNSHARED_FOR_NS: u64 = ms(10);

const fn ms(count: u64) -> u64 {
    count * 1_000_000
}

/// Suspends polling while the thread does not have its core for itself (rule A13).
///
/// Polling uses up the time that the thread may run: its part of a core that it shares with its peer, or its
/// quota (cgroup `cpu.max`). When that is used up, the thread stands still, with all its requests. On a
/// shared core the peer cannot run while the thread polls. A loop that sleeps instead keeps its time for the
/// requests.
///
/// Three observations show this:
///
/// - *Searches in vain.* If 64 searches have found nothing, and hardly any other has, the peer may need this
///   very core. Or the peer is late because the loop sleeps: it then sleeps as well, and takes longer to wake
///   up than the loop searches. A [probe](Self::PROBE) distinguishes the two: a search that lasts until such
///   a peer is awake, during which a peer on this core cannot run. From then on the loop searches only in
///   probes, before one wait of 256 and for less than a hundredth of the time, until a probe has found work.
/// - *Gaps.* A polling loop reads its clock every few microseconds. After a gap of a millisecond between two
///   readings, the thread did not run.
/// - *Turns.* A long search is compared with its processor time. If they differ by more than 4 us, another
///   thread may have run on this core meanwhile.
///
/// A turn is only a suspicion at first: interrupts and a hypervisor take processor time as well. Therefore
/// the next eight searches are [watched](Self::is_watched): before and after them the loop asks the system
/// for how long the thread has waited for its core. The thread does not sleep in between, so only another
/// thread on this core can have delayed it. If the system does not report this time, the next suspicion
/// counts as a turn.
///
/// After a gap or a turn polling is suspended for a moment: for the length of the gap, for 16 times a gap
/// that is so long that it must come from a quota, or for two milliseconds. Each repetition soon after the
/// end of a pause doubles the pause, up to 128 times the gap, or a second. A single gap, which any machine
/// has now and then, therefore costs almost nothing, and repeated ones take less than a hundredth of the
/// time.
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
    /// The time until which polling is suspended, in nanoseconds of the loop's clock.
    until_ns: u64,
    pause_ns: u64,
    /// [`TURN_WEIGHT`] for each search with a turn, less one for each without.
    turns: u16,
    /// The number of searches in vain, less [`HIT_WEIGHT`] for each other.
    misses: u8,
    /// The number of waits since the last probe, or since too many searches were in vain.
    passed: u16,
    /// Set while the present search is a probe.
    is_probing: bool,
    /// The earliest time of the next probe.
    probe_at_ns: u64,
    /// The number of searches that will be watched.
    watched: u8,
    /// The time until which the core counts as the thread's own.
    unshared_until_ns: u64,
}

impl Contention {
    /// The length of a probe, within the maximum of the parameters: longer than two threads take to wake each
    /// other up.
    pub const PROBE: Duration = Duration::from_micros(200);

    /// The part of a search that is not compared with its processor time. Reading the processor time costs
    /// some 5 % of this time.
    pub const COMPARED_AFTER: Duration = Duration::from_micros(5);

    /// Makes the state before any contention.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            until_ns: 0,
            pause_ns: 0,
            turns: 0,
            misses: 0,
            passed: 0,
            is_probing: false,
            probe_at_ns: 0,
            watched: 0,
            unshared_until_ns: 0,
        }
    }

    /// Returns whether to search before the next wait, at `now_ns` of the loop's clock. Call it at most once
    /// for each wait, after a first round that has found nothing, and call [`waited`](Self::waited) after
    /// each wait.
    #[inline]
    pub const fn is_worth_it(&mut self, now_ns: u64) -> bool {
        if self.is_suspended(now_ns) {
            return false;
        }
        if self.misses < MOST_MISSES {
            return true;
        }
        self.is_probing = self.passed >= PROBE_WAITS && now_ns >= self.probe_at_ns;
        if self.is_probing {
            self.passed = 0;
            let apart_ns = saturating_ns(Self::PROBE) * PROBE_SHARE;
            self.probe_at_ns = now_ns.saturating_add(apart_ns);
        }
        self.is_probing
    }

    /// Returns whether the search that [`is_worth_it`](Self::is_worth_it) has just allowed is a probe: it
    /// takes up to [`PROBE`](Self::PROBE), even if the policy's budget is shorter.
    #[inline]
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.is_probing
    }

    /// Returns whether a search was in vain lately. In that case, check for events before the search: an
    /// event that is pending already is no success of polling, because it would have ended a sleep at once.
    /// Also compare all of the search with its processor time.
    #[inline]
    #[must_use]
    pub const fn is_in_doubt(&self) -> bool {
        self.misses > 0
    }

    /// Records a wait, with or without a search.
    #[inline]
    pub const fn waited(&mut self) {
        if self.misses >= MOST_MISSES {
            self.passed = self.passed.saturating_add(1);
        }
    }

    /// Returns whether polling was ever suspended, or the loop only probes now. If not,
    /// [`is_worth_it`](Self::is_worth_it) always returns `true`.
    #[inline]
    #[must_use]
    pub const fn was_seen(&self) -> bool {
        self.until_ns != 0 || self.misses >= MOST_MISSES
    }

    /// Records whether a search has found work. Returns whether the loop only probes from now on.
    #[inline]
    pub const fn found(&mut self, something: bool) -> bool {
        if core::mem::replace(&mut self.is_probing, false) {
            if something {
                (self.misses, self.probe_at_ns) = (0, 0);
            }
            return false;
        }
        if something {
            self.misses = self.misses.saturating_sub(HIT_WEIGHT);
        } else if self.misses < MOST_MISSES {
            self.misses += 1;
            return self.misses == MOST_MISSES;
        }
        false
    }

    /// Returns whether the core still counts as the thread's own at `now_ns`, because it did less than 10 ms
    /// ago.
    #[inline]
    #[must_use]
    pub const fn is_unshared(&self, now_ns: u64) -> bool {
        now_ns < self.unshared_until_ns
    }

    /// Returns whether the search that begins now is watched. If so, pass [`judge`](Self::judge) the time for
    /// which the thread waits for its core in it.
    #[inline]
    #[must_use]
    pub const fn is_watched(&self) -> bool {
        self.watched > 0 || self.is_probing
    }

    /// Handles a [suspicion](Self::compared): the next searches are watched, unless the core was found not to
    /// be shared a moment ago.
    pub const fn suspect(&mut self, now_ns: u64) {
        if !self.is_unshared(now_ns) {
            self.watched = WATCHED;
        }
    }

    /// Decides on a suspicion in a search that was watched: returns whether another thread has had a turn.
    /// `waited` is the time for which the thread has waited for its core while it could have run: the growth
    /// of field 2 of `/proc/thread-self/schedstat` on Linux. `None` if the system does not report it.
    pub const fn judge(&mut self, waited: Option<Duration>, now_ns: u64) -> bool {
        match waited {
            Some(waited) if waited.as_nanos() < TURN_NS as u128 => {
                self.watched = 0;
                self.unshared_until_ns = now_ns.saturating_add(UNSHARED_FOR_NS);
                false
            }
            _ => {
                self.watched = WATCHED;
                true
            }
        }
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

    /// Compares the duration of a search with the processor time of the thread. The search was watched, or
    /// this is its part beyond [`COMPARED_AFTER`](Self::COMPARED_AFTER). Returns whether another thread may
    /// have had a turn meanwhile: [`turn`](Self::turn) records one.
    pub const fn compared(&mut self, took: Duration, cpu: Duration) -> bool {
        if took.saturating_sub(cpu).as_nanos() >= TURN_NS as u128 {
            return true;
        }
        self.turns = self.turns.saturating_sub(1);
        self.watched = self.watched.saturating_sub(1);
        false
    }

    /// Records a turn of another thread, at the end of the search. Polling is suspended from now on.
    pub const fn turn(&mut self, now_ns: u64) {
        let doublings = self.turns / TURN_WEIGHT;
        if doublings < MOST_DOUBLINGS {
            self.turns += TURN_WEIGHT;
        }
        let until_ns = now_ns.saturating_add(TURN_PAUSE_NS << doublings);
        if self.until_ns < until_ns {
            self.until_ns = until_ns;
        }
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

    /// Polls until `end_ns`, and stands still for `gap_ns` whenever it has polled for `every_ns`. Returns the
    /// time that it stood still, and the time that it polled.
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
            assert!(!contention.compared(us(50), us(47)));
            assert!(!contention.compared(us(50), us(51)), "clocks differ");
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
                    if contention.compared(us(100), us(cpu)) {
                        contention.turn(now);
                    }
                }
            }
            searches
        };
        assert!(run(10) < 600_000 / 500, "of 600,000: {}", run(10));
        assert!(run(1000) > 580_000, "now and then costs little: {}", run(1000));
    }

    /// Makes consecutive waits, each of `every_ns`. Returns the number of searches, and the number of probes
    /// among them.
    fn wait(one: &mut Contention, now_ns: &mut u64, every_ns: u64, count: u32, finds: bool) -> (u32, u32) {
        let (mut searches, mut probes) = (0, 0);
        for _ in 0..count {
            *now_ns += every_ns;
            if one.is_worth_it(*now_ns) {
                searches += 1;
                probes += u32::from(one.is_probe());
                one.found(finds);
            }
            one.waited();
        }
        (searches, probes)
    }

    #[test]
    fn a13_after_searches_in_vain_the_loop_only_probes() {
        let (mut contention, mut now) = (Contention::new(), 0);
        let slow = MS; // a probe is due each 256 waits
        assert_eq!(wait(&mut contention, &mut now, slow, 64, false), (64, 0));
        assert!(contention.was_seen());
        assert_eq!(wait(&mut contention, &mut now, slow, 2570, false), (10, 10));
        // 26 ms between two probes of 200 us
        let quick = MS / 100;
        let (searches, probes) = wait(&mut contention, &mut now, quick, 100_000, false);
        assert_eq!(searches, probes);
        assert!((38..=40).contains(&probes), "{probes} in a second");
    }

    #[test]
    fn a13_a_probe_that_finds_something_makes_the_loop_search_again() {
        let (mut contention, mut now) = (Contention::new(), 0);
        for _ in 0..10 {
            assert_eq!(wait(&mut contention, &mut now, MS, 64, false), (64, 0));
            assert_eq!(wait(&mut contention, &mut now, MS, 257, true).1, 1);
            assert!(!contention.was_seen());
        }
    }

    #[test]
    fn a13_a_search_that_finds_something_makes_up_for_eight_in_vain() {
        let (mut contention, mut now) = (Contention::new(), 0);
        for _ in 0..100 {
            wait(&mut contention, &mut now, MS, 8, false);
            wait(&mut contention, &mut now, MS, 1, true);
        }
        assert!(!contention.was_seen());
        assert_eq!(wait(&mut contention, &mut now, MS, 100, false), (64, 0));
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
    fn a13_a_thread_that_waits_for_its_core_in_a_search_shares_it() {
        let us = Duration::from_micros;
        let mut contention = Contention::new();
        assert!(contention.compared(us(30), us(10)) && !contention.is_watched());
        contention.suspect(MS);
        assert!(contention.is_watched());
        assert!(contention.judge(Some(us(4)), MS) && contention.judge(None, MS));
        assert!(contention.is_watched() && !contention.is_unshared(MS));
        let almost = Duration::from_nanos(3_999);
        assert!(!contention.judge(Some(almost), 2 * MS), "a hypervisor");
        assert!(contention.is_unshared(12 * MS - 1) && !contention.is_unshared(12 * MS));
        contention.suspect(12 * MS - 1);
        assert!(!contention.is_watched(), "a moment ago it was not shared");
    }

    #[test]
    fn a13_eight_searches_without_a_suspicion_end_the_watch() {
        let us = Duration::from_micros;
        let mut contention = Contention::new();
        contention.suspect(0);
        let quiet = (0..100).take_while(|_| {
            let is_watched = contention.is_watched();
            contention.compared(us(50), us(50));
            is_watched
        });
        assert_eq!(quiet.count(), 8);
        assert!(
            !contention.is_unshared(MS),
            "that nothing was seen proves nothing"
        );
    }

    #[test]
    fn a13_extreme_readings_do_no_harm() {
        let mut contention = Contention::new();
        assert!(contention.read(0, u64::MAX));
        assert!(!contention.is_suspended(u64::MAX), "there is nothing later");
        assert!(!contention.read(u64::MAX, 0), "a clock that goes back");
        assert!(contention.compared(Duration::MAX, Duration::ZERO));
        contention.turn(u64::MAX);
        assert!(contention.judge(Some(Duration::MAX), u64::MAX));
        assert!(!contention.judge(Some(Duration::ZERO), u64::MAX));
    }
}
