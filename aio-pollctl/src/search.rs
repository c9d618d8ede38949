//! Searching for work: the polling of one iteration, made of the steps that a loop provides.

use core::time::Duration;

use crate::{CheckPacer, ClockStride, Contention, IdleCosts, Pacing};

/// The steps of a search for work, as a loop provides them to [`Pacing::search`].
///
/// The loop appends the events that a step finds to its own list. Times are nanoseconds of one clock, since
/// any fixed moment.
///
/// The example `pacing` is a whole loop. Here, the only source has work in its third round:
///
/// ```
/// use std::{convert::Infallible, time::{Duration, Instant}};
/// use aio_pollctl::{IdleCosts, Pacing, PollParams, Search};
///
/// struct Loop {
///     start: Instant,
///     rounds: u32,
/// }
///
/// impl Search for Loop {
///     type Error = Infallible;
///     fn now_ns(&self) -> u64 { self.start.elapsed().as_nanos() as u64 }
///     fn round(&mut self) -> bool {
///         self.rounds += 1;
///         self.rounds == 3
///     }
///     fn rounds(&self) -> u32 { self.rounds }
///     // There is nothing else to look for.
///     fn check(&mut self) -> Result<bool, Infallible> { Ok(false) }
/// #   fn cpu_time(&self) -> Duration { self.start.elapsed() }
/// #   fn run_delay(&self) -> Option<Duration> { None }
/// #   fn is_in_poll_mode(&self) -> bool { true }
/// #   fn enter_poll_mode(&mut self) {}
/// #   fn is_notified(&self) -> bool { false }
/// #   fn is_full(&self) -> bool { false }
/// #   fn can_peek(&self) -> bool { false }
/// #   fn peek(&mut self) -> Result<bool, Infallible> { Ok(false) }
/// #   fn peek_beside_hits(&mut self) -> Result<bool, Infallible> { Ok(false) }
/// #   fn demote_idle(&mut self, _: &IdleCosts) -> bool { false }
/// #   fn pass(&mut self, _: Duration) -> bool { false }
/// #   fn suspended(&mut self) {}
/// }
///
/// let pacing = Pacing::new(true);
/// pacing.reset(&PollParams::unlimited());
/// let mut one = Loop { start: Instant::now(), rounds: 0 };
/// let Ok(searched) = pacing.search(&mut one, Duration::from_secs(60), None);
/// assert!(searched.hit);
/// assert_eq!(one.rounds, 3);
/// ```
pub trait Search {
    /// The error of a check of the descriptors.
    type Error;

    /// Reads the loop's clock.
    fn now_ns(&self) -> u64;

    /// Reads the processor time of the thread.
    fn cpu_time(&self) -> Duration;

    /// Returns the total time for which the thread has waited for its core, if the system reports it. This is
    /// called before and after some searches when contention is suspected (see [`Contention::is_watched`]),
    /// and not for 10 ms after the suspicion was wrong.
    fn run_delay(&self) -> Option<Duration>;

    /// Returns whether the polled sources are in poll mode: their peers do not notify.
    fn is_in_poll_mode(&self) -> bool;

    /// Puts the polled sources into poll mode, if they are not.
    fn enter_poll_mode(&mut self);

    /// Polls each source once. Returns whether one has work.
    fn round(&mut self) -> bool;

    /// Returns the number of rounds so far, modulo 2^32.
    fn rounds(&self) -> u32;

    /// Returns whether another thread has notified the loop.
    fn is_notified(&self) -> bool;

    /// Returns whether the list has no room left for events.
    fn is_full(&self) -> bool;

    /// Checks the descriptors without waiting. Returns whether there are new events.
    ///
    /// # Errors
    /// The error of the system.
    fn check(&mut self) -> Result<bool, Self::Error>;

    /// Returns whether [`peek`](Self::peek) can find anything.
    fn can_peek(&self) -> bool;

    /// Checks the descriptors, without a system call while nothing is ready. Returns whether there are new
    /// events.
    ///
    /// # Errors
    /// The error of the system.
    fn peek(&mut self) -> Result<bool, Self::Error>;

    /// As [`peek`](Self::peek), although a round has found work. The event by which a source's peer announces
    /// that very work does not count. Returns whether it has made system calls in vain.
    ///
    /// # Errors
    /// The error of the system.
    fn peek_beside_hits(&mut self) -> Result<bool, Self::Error>;

    /// Demotes idle sources. Returns whether a source has work after all.
    fn demote_idle(&mut self, costs: &IdleCosts) -> bool;

    /// Advances a simulated clock by `left` and returns `true`. A real clock does nothing and returns
    /// `false`, as [`aio_timers::Clock::pass`](https://docs.rs/aio-timers).
    fn pass(&mut self, left: Duration) -> bool;

    /// Called when polling is suspended for a while (rule A13).
    fn suspended(&mut self);
}

/// The result of a search, and its duration.
///
/// ```
/// use aio_pollctl::Searched;
///
/// assert!(!Searched::default().hit, "nothing was searched");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Set if there is work: the loop must not wait.
    pub hit: bool,
    /// The time that it polled, as far as a clock was read.
    pub spun: Duration,
    /// The time at which it ended, if a clock was read or the pace of the rounds gives it: a hit in the very
    /// first round costs no reading.
    pub ended_ns: Option<u64>,
}

impl Searched {
    /// Returns the result if no search was made, at `now_ns`.
    #[inline]
    #[must_use]
    pub const fn not_at(now_ns: u64) -> Self {
        Self {
            hit: false,
            spun: Duration::ZERO,
            ended_ns: Some(now_ns),
        }
    }
}

impl Pacing {
    /// Searches for work for up to `budget`, which is at most `timeout` (rules A2, A3): polls the sources
    /// round after round, and checks for notifications. Meanwhile it checks the descriptors (rules R10, D8),
    /// in each round if the loop can peek and otherwise at intervals, and demotes idle sources (rule A8).
    ///
    /// On a contended core it does not search, or ends early. After many searches in vain it seldom searches,
    /// but then for up to [`Contention::PROBE`] (rule A13). With a core of its own it does not measure
    /// contention, so a search that finds work need not read the clock, while the peer waits. The end is then
    /// an estimate, from the pace of the rounds before; it is wrong by less than 1.5 us, unless something
    /// delayed the thread in the last rounds.
    ///
    /// # Errors
    /// The error of a check.
    pub fn search<S: Search>(
        &self,
        on: &mut S,
        budget: Duration,
        timeout: Option<Duration>,
    ) -> Result<Searched, S::Error> {
        let is_decided = !on.is_in_poll_mode() && self.is_contended();
        if is_decided {
            // Peers go on kicking while polling is suspended: entering and leaving poll mode costs them and
            // the loop more than a kick.
            let now_ns = on.now_ns();
            if !self.is_worth_it(now_ns) {
                return Ok(Searched::not_at(now_ns));
            }
        }
        on.enter_poll_mode();
        let found_more = self.checks.get().is_pending() && self.check(on)?;
        if on.round() || found_more || on.is_notified() {
            return Ok(Searched {
                hit: true,
                ..Searched::default()
            });
        }
        let started_ns = on.now_ns();
        if !is_decided && !self.is_worth_it(started_ns) {
            return Ok(Searched::not_at(started_ns));
        }
        self.search_on(on, started_ns, self.length(budget, timeout))
    }

    /// Continues a search after its first round.
    #[inline]
    fn search_on<S: Search>(
        &self,
        on: &mut S,
        started_ns: u64,
        budget: Duration,
    ) -> Result<Searched, S::Error> {
        let since = |now_ns: u64| Duration::from_nanos(now_ns.saturating_sub(started_ns));
        let mut compared = self.compared_from_the_start(on, started_ns);
        let mut now_ns = compared.map_or(started_ns, |since| since.began_ns);
        let (mut stride, mut hit) = (ClockStride::new(), false);
        let estimates = self.estimates_ends();
        let peeks = on.can_peek();
        if self.contention(|one| one.is_in_doubt()) == Some(true) {
            (now_ns, hit) = self.timed_check(on, now_ns)?;
        }
        // The event would have ended a sleep at once: polling has gained nothing.
        let was_there = hit;
        let is_gap = loop {
            if !hit && !peeks && self.checks.get().is_due(now_ns) {
                (now_ns, hit) = self.timed_check(on, now_ns)?;
            }
            if !hit && let Some(costs) = self.idle_test(on.rounds()) {
                hit = on.demote_idle(costs);
            }
            let mut rounds = 0;
            while !hit && rounds < stride.rounds() {
                core::hint::spin_loop();
                hit = on.round() || on.is_notified() || (peeks && on.peek()?);
                rounds += 1;
            }
            let before_ns = now_ns;
            if hit
                && estimates
                && let Some(ns) = stride.estimated_ns(rounds)
            {
                let ended_ns = before_ns.saturating_add(ns);
                return Ok(Searched {
                    hit,
                    spun: since(ended_ns),
                    ended_ns: Some(ended_ns),
                });
            }
            now_ns = on.now_ns();
            // The thread did not run between the two readings.
            let is_gap = self.contention(|one| one.read(before_ns, now_ns)) == Some(true);
            if is_gap || hit || since(now_ns) >= budget {
                break is_gap;
            }
            if compared.is_none() && since(now_ns) >= Contention::COMPARED_AFTER {
                compared = self
                    .contention(|_| ())
                    .map(|()| Compared::at(now_ns, on.cpu_time()));
            }
            if now_ns == before_ns && on.pass(budget.saturating_sub(since(now_ns))) {
                // Simulated time does not move by itself: the rest of the budget passes at once.
                now_ns = on.now_ns();
                break false;
            }
            stride.took(Duration::from_nanos(now_ns.saturating_sub(before_ns)));
        };
        if (!was_there && self.is_suspended_after(on, compared, now_ns, hit)) || is_gap {
            on.suspended();
        }
        Ok(Searched {
            hit,
            spun: since(now_ns),
            ended_ns: Some(now_ns),
        })
    }

    /// Ends an iteration after a hit: without a check, unless one is due (rules R10, D8), and without a test
    /// for idle sources.
    ///
    /// # Errors
    /// The error of a check.
    #[inline(never)]
    pub fn after_hit<S: Search>(&self, on: &mut S) -> Result<(), S::Error> {
        if self.count_hit(on.rounds(), || on.can_peek(), || on.now_ns()) {
            self.after_counted_hit(on)
        } else {
            Ok(())
        }
    }

    /// Counts a hit. This is the first half of [`after_hit`](Self::after_hit), for loops that have a shorter path without the second
    /// half. Returns `true` if [`after_counted_hit`](Self::after_counted_hit) must be called. The parameters are as in [`Search`].
    #[inline(always)]
    #[must_use]
    pub fn count_hit(
        &self,
        rounds: u32,
        can_peek: impl FnOnce() -> bool,
        now_ns: impl FnOnce() -> u64,
    ) -> bool {
        self.checks.step(CheckPacer::count_unchecked)
            && (self.is_idle_test_due(rounds) || self.is_check_due(can_peek(), now_ns))
    }

    #[inline(never)]
    fn is_check_due(&self, peeks: bool, now_ns: impl FnOnce() -> u64) -> bool {
        let checks = self.checks.get();
        if !checks.reads_clock(peeks) {
            return false;
        }
        let now_ns = now_ns();
        checks.is_due_after_streak(now_ns) || (peeks && checks.is_peek_due(now_ns))
    }

    /// The second half of [`after_hit`](Self::after_hit).
    ///
    /// # Errors
    /// The error of a check.
    #[inline(never)]
    pub fn after_counted_hit<S: Search>(&self, on: &mut S) -> Result<(), S::Error> {
        if let Some(costs) = self.idle_test(on.rounds()) {
            on.demote_idle(costs);
        }
        let (checks, peeks) = (self.checks.get(), on.can_peek());
        if !checks.reads_clock(peeks) {
            return Ok(());
        }
        let now_ns = on.now_ns();
        if checks.is_due_after_streak(now_ns) {
            self.timed_check(on, now_ns)?;
        } else if peeks && checks.is_peek_due(now_ns) && on.peek_beside_hits()? {
            let ended_ns = on.now_ns();
            self.checks.step(|checks| checks.peeked_in_vain(now_ns, ended_ns));
        }
        Ok(())
    }

    /// Checks the descriptors, and records the check.
    #[inline]
    pub(crate) fn check<S: Search>(&self, on: &mut S) -> Result<bool, S::Error> {
        self.checks.step(|checks| checks.checked(on.is_full()));
        on.check()
    }

    /// Checks the descriptors at `now_ns`. Returns the time at which the check ended, and whether it has
    /// found anything.
    fn timed_check<S: Search>(&self, on: &mut S, now_ns: u64) -> Result<(u64, bool), S::Error> {
        let found = self.check(on)?;
        let ended_ns = on.now_ns();
        self.checks.step(|checks| checks.done(now_ns, ended_ns, found));
        Ok((ended_ns, found))
    }

    /// Reads the times with which a search is compared, if it is watched, or in doubt. Other searches are
    /// compared after a while.
    #[inline]
    fn compared_from_the_start<S: Search>(&self, on: &S, started_ns: u64) -> Option<Compared> {
        match self.contention(|one| (one.is_in_doubt(), one.is_watched()))? {
            (_, true) => Some(Compared {
                is_watched: true,
                delay: on.run_delay(),
                ..Compared::at(on.now_ns(), on.cpu_time())
            }),
            (true, false) => Some(Compared::at(started_ns, on.cpu_time())),
            (false, false) => None,
        }
    }

    /// Compares a search with its processor time, from `since` on, and records whether it has found work.
    /// Returns whether polling is suspended because of it.
    #[inline]
    fn is_suspended_after<S: Search>(&self, on: &S, since: Option<Compared>, now_ns: u64, hit: bool) -> bool {
        let suspicion = since.map_or(Suspicion::None, |since| {
            let took = Duration::from_nanos(now_ns.saturating_sub(since.began_ns));
            let cpu = on.cpu_time().saturating_sub(since.cpu);
            if self.contention(|one| one.compared(took, cpu)) == Some(true) {
                self.suspicion(on, since, now_ns)
            } else {
                Suspicion::None
            }
        });
        let is_turn = suspicion == Suspicion::Turn;
        if is_turn {
            self.contention(|one| one.turn(now_ns));
        }
        // Work that another thread has made possible meanwhile is no success of polling.
        self.contention(|one| one.found(hit && suspicion == Suspicion::None)) == Some(true) || is_turn
    }

    /// Returns whether the processor time of a search suggests that other threads use the core.
    #[cold]
    fn suspicion<S: Search>(&self, on: &S, since: Compared, now_ns: u64) -> Suspicion {
        if !since.is_watched {
            return match self.contention(|one| (one.suspect(now_ns), one.is_watched()).1) {
                Some(true) => Suspicion::Open,
                _ => Suspicion::None,
            };
        }
        let waited = since.delay.zip(on.run_delay());
        let waited = waited.map(|(before, after)| after.saturating_sub(before));
        match self.contention(|one| one.judge(waited, now_ns)) {
            Some(true) => Suspicion::Turn,
            _ => Suspicion::None,
        }
    }
}

/// The times with which a search is compared.
#[derive(Clone, Copy)]
struct Compared {
    began_ns: u64,
    cpu: Duration,
    is_watched: bool,
    /// The total time for which the thread had waited for its core, if the search is watched and the system
    /// reports it.
    delay: Option<Duration>,
}

impl Compared {
    const fn at(began_ns: u64, cpu: Duration) -> Self {
        Self {
            began_ns,
            cpu,
            is_watched: false,
            delay: None,
        }
    }
}

/// Whether another thread has run on the core during a search.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    None,
    /// The next searches will show it.
    Open,
    Turn,
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
