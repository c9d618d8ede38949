//! [`CheckPacer`]: decides when a loop checks its descriptors while it polls, or while it always has work.

use core::time::Duration;

/// The longest time between two checks while polling.
const LONGEST_INTERVAL_NS: u64 = 50_000;
/// Checks take at most one part in this many of the time between two checks.
const SHARE: u64 = 10;
/// The number of iterations without a check after which the loop finds out whether a check is due.
const STRIDE: u16 = 4;
/// The largest number of iterations without a check, independent of the clock.
const LONGEST_STREAK: u16 = 64;

/// Decides when a loop that does not sleep checks its descriptors.
///
/// Polling in user space does not notice descriptors without a poll callback, demoted sources, or room to write. The loop therefore
/// also checks the descriptors, without waiting: [at most 50 us](Self::LONGEST_INTERVAL) after the previous check, and sooner while
/// checks find events. Checks take at most a tenth of the time.
///
/// Iterations that end at once, because polling found work or because deferred work prevents waiting, do not
/// check either. The pacer counts them: after 4, 8, 16, and 32 of them the loop reads the clock, and the 64th
/// always checks. A check is therefore at most twice as far from the previous one as it should be.
///
/// A backend that can peek is checked in every fourth of them, usually without a system call. Peeks that make one
/// and find nothing take at most a tenth of the time as well.
///
/// The caller reads the clock. Times are nanoseconds since any fixed moment.
///
/// ```
/// # use aio_pollctl::CheckPacer;
/// let mut pacer = CheckPacer::new();
/// assert!(pacer.is_due(50_000), "no check for 50 us");
/// pacer.done(50_000, 51_000, true);
/// assert!(!pacer.is_due(60_999), "it took 1 us: nine tenths of the time are for polling");
/// assert!(pacer.is_due(61_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckPacer {
    last_ns: u64,
    interval_ns: u64,
    /// Iterations since the last check.
    streak: u16,
    /// The time from which a peek may make system calls again.
    next_peek_ns: u64,
    /// Set if deferred work prevented the last iteration from waiting.
    prevented: bool,
    /// Set if the list was full after the last check.
    pending: bool,
    /// Set if a check or a peek has found events since the last peek in vain.
    has_found: bool,
}

impl Default for CheckPacer {
    fn default() -> Self {
        Self::new()
    }
}

impl CheckPacer {
    /// The longest time between two checks while polling.
    pub const LONGEST_INTERVAL: Duration = Duration::from_nanos(LONGEST_INTERVAL_NS);

    /// Makes a pacer whose last check was at time 0.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last_ns: 0,
            interval_ns: LONGEST_INTERVAL_NS,
            streak: 0,
            next_peek_ns: 0,
            prevented: false,
            pending: false,
            has_found: false,
        }
    }

    /// Returns whether a polling loop should check its descriptors now. Always `false` for a time before the
    /// last check.
    #[inline]
    #[must_use]
    pub const fn is_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_ns) >= self.interval_ns
    }

    /// Records the start and the end of a check, in addition to [`checked`](Self::checked).
    ///
    /// After a check that found events the next one is due as soon as its cost allows. Each check without events doubles the interval.
    pub fn done(&mut self, began_ns: u64, ended_ns: u64, found: bool) {
        self.last_ns = ended_ns;
        let soonest = ended_ns.saturating_sub(began_ns).saturating_mul(SHARE);
        let next = if found {
            soonest
        } else {
            self.interval_ns.saturating_mul(2)
        };
        self.interval_ns = next.max(soonest).min(LONGEST_INTERVAL_NS);
        self.has_found |= found;
    }

    /// Records a check, without its time. If `is_full`, the list may have lacked room for some events, and another check is
    /// [pending](Self::is_pending).
    #[inline]
    pub const fn checked(&mut self, is_full: bool) {
        self.streak = 0;
        self.pending = is_full;
    }

    /// Records a check by an iteration that has nothing else to do, without its time.
    #[inline]
    pub const fn checked_only(&mut self) {
        self.checked(false);
        self.prevented = false;
    }

    /// Returns whether the next iteration should check before it polls, because the list was full after the last check.
    #[inline]
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.pending
    }

    /// Counts an iteration without a check. Returns `true` for every fourth one: the loop then calls
    /// [`reads_clock`](Self::reads_clock), and has time for rare tasks.
    #[inline]
    pub const fn count_unchecked(&mut self) -> bool {
        self.streak = self.streak.wrapping_add(1);
        self.streak.is_multiple_of(STRIDE)
    }

    /// Returns whether to read the clock and call [`is_due_after_streak`](Self::is_due_after_streak), after a
    /// fourth iteration without a check. `peeks` states whether the backend can peek.
    #[inline]
    #[must_use]
    pub const fn reads_clock(&self, peeks: bool) -> bool {
        peeks || self.streak.is_power_of_two()
    }

    /// Returns whether a check is due after iterations without one: by the clock, or because there were 64 of them.
    #[must_use]
    pub const fn is_due_after_streak(&self, now_ns: u64) -> bool {
        self.streak >= LONGEST_STREAK || self.is_due(now_ns)
    }

    /// Returns whether a peek is due, although polling finds work.
    #[inline]
    #[must_use]
    pub const fn is_peek_due(&self, now_ns: u64) -> bool {
        now_ns >= self.next_peek_ns
    }

    /// Records that a peek has found events.
    #[inline]
    pub const fn peek_found(&mut self) {
        self.has_found = true;
    }

    /// Records the start and the end of a peek that made system calls and found nothing. Later peeks then
    /// pause, except after the first such peek since a check or a [peek that has found
    /// events](Self::peek_found): a backend may have to watch again for the descriptors that it has reported,
    /// and events that arrive meanwhile must not wait.
    pub fn peeked_in_vain(&mut self, began_ns: u64, ended_ns: u64) {
        if core::mem::take(&mut self.has_found) {
            return;
        }
        let took_ns = ended_ns.saturating_sub(began_ns);
        let pause_ns = took_ns.saturating_mul(SHARE - 1).min(LONGEST_INTERVAL_NS);
        self.next_peek_ns = ended_ns.saturating_add(pause_ns);
    }

    /// Records whether deferred work prevents this iteration from waiting. Returns whether it also prevented the previous one. In that
    /// case this iteration checks its descriptors only if [`count_unchecked`](Self::count_unchecked) leads to a check.
    #[inline]
    pub const fn prevents_again(&mut self, prevented: bool) -> bool {
        core::mem::replace(&mut self.prevented, prevented) && prevented
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn r10_checks_are_never_further_apart_than_the_bound_and_never_dearer_than_their_share() {
        let mut pacer = CheckPacer::new();
        let mut now = 0;
        for (cost, found, expected) in [
            (1, true, 10),
            (1, false, 20),
            (1, false, 40),
            (1, false, 50),
            (3, true, 30),
            (2, false, 50),
            (20, true, 50),
            (u64::MAX / 2_000, false, 50),
        ] {
            pacer.done(now * 1000, (now + cost) * 1000, found);
            now += cost;
            assert!(
                !pacer.is_due((now + expected) * 1000 - 1),
                "{cost} us, found: {found}"
            );
            assert!(pacer.is_due((now + expected) * 1000), "{cost} us, found: {found}");
        }
    }

    #[test]
    fn r10_a_clock_that_goes_back_makes_no_check_due() {
        let mut pacer = CheckPacer::new();
        pacer.done(1_000_000, 1_001_000, true);
        assert!(!pacer.is_due(0));
        pacer.done(500, 400, false);
        assert!(!pacer.is_due(400) && pacer.is_due(400 + 20_000));
    }

    #[test]
    fn d8_the_clock_is_read_ever_more_seldom_and_the_sixty_fourth_checks_anyway() {
        let every_fourth: Vec<u32> = (4..=64).step_by(4).collect();
        for (peeks, expected) in [(false, vec![4, 8, 16, 32, 64]), (true, every_fourth)] {
            let mut pacer = CheckPacer::new();
            pacer.done(0, 1000, false);
            for round in 0..3 {
                for iteration in 1..=64 {
                    let reads = pacer.count_unchecked() && pacer.reads_clock(peeks);
                    let is_expected = expected.contains(&iteration);
                    assert_eq!(reads, is_expected, "round {round}, iteration {iteration}");
                    assert_eq!(pacer.is_due_after_streak(1000), iteration == 64);
                    assert!(pacer.is_due_after_streak(51_000), "by the clock");
                }
                pacer.checked(false);
            }
        }
    }

    #[test]
    fn d8_a_check_is_at_most_twice_as_far_from_the_last_one_as_it_should_be() {
        for iteration_ns in [1, 40, 900, 3_000, 12_600, 24_000] {
            let mut pacer = CheckPacer::new();
            let mut now_ns = 0;
            while !(pacer.count_unchecked() && pacer.reads_clock(false) && pacer.is_due_after_streak(now_ns))
            {
                now_ns += iteration_ns;
            }
            assert!(now_ns <= 2 * 50_000, "{iteration_ns} ns: after {now_ns} ns");
        }
    }

    #[test]
    fn r10_peeks_in_vain_take_a_tenth_of_the_time() {
        let mut pacer = CheckPacer::new();
        assert!(pacer.is_peek_due(0));
        pacer.peeked_in_vain(1000, 1400);
        assert!(!pacer.is_peek_due(1400 + 3599) && pacer.is_peek_due(1400 + 3600));
        pacer.peeked_in_vain(10_000, 90_000);
        assert!(!pacer.is_peek_due(90_000 + 49_999) && pacer.is_peek_due(90_000 + 50_000));
        pacer.peeked_in_vain(500, 400);
        assert!(pacer.is_peek_due(400), "the clock went back");
    }

    #[test]
    fn r10_a_peek_that_watches_anew_for_what_was_found_delays_no_other() {
        let mut pacer = CheckPacer::new();
        for round in 1..4 {
            let now_ns = round * 1_000_000;
            if round == 2 {
                pacer.done(now_ns - 500, now_ns, true);
            } else {
                pacer.peek_found();
                pacer.peek_found();
            }
            pacer.peeked_in_vain(now_ns, now_ns + 400);
            assert!(pacer.is_peek_due(now_ns + 400));
            // Only one for each check or peek that has found events.
            pacer.peeked_in_vain(now_ns + 400, now_ns + 800);
            assert!(!pacer.is_peek_due(now_ns + 800 + 3599) && pacer.is_peek_due(now_ns + 800 + 3600));
        }
    }

    #[test]
    fn d8_a_counter_that_wraps_around_delays_a_check_by_no_more_than_a_streak() {
        let mut pacer = CheckPacer {
            streak: u16::MAX,
            ..CheckPacer::new()
        };
        let until_due = (1..)
            .find(|_| pacer.count_unchecked() && pacer.reads_clock(false) && pacer.is_due_after_streak(0));
        assert_eq!(until_due, Some(65));
    }

    #[test]
    fn d8_a_check_without_room_is_pending_until_one_has_room() {
        let mut pacer = CheckPacer::new();
        assert!(!pacer.is_pending());
        pacer.checked(true);
        pacer.done(0, 1000, false);
        assert!(pacer.is_pending());
        pacer.checked(false);
        assert!(!pacer.is_pending());
    }

    #[test]
    fn d8_only_work_after_work_prevents_again() {
        let mut pacer = CheckPacer::new();
        let answers = [true, true, true, false, true, true].map(|prevented| pacer.prevents_again(prevented));
        assert_eq!(answers, [false, true, true, false, false, true]);
    }
}
