//! [`Pacing`]: the state machines that pace a loop, together.

use core::cell::Cell;
use core::time::Duration;

use crate::{CheckPacer, Contention, IdleCosts, PollParams, PreSleepSpin};

/// The costs of idle sources.
const COSTS: IdleCosts = IdleCosts::TYPICAL;

/// Paces one loop: when to check its descriptors while polling, whether to check them for a moment before a
/// sleep, when to demote idle sources, and whether the thread has its core for itself.
///
/// [`search`](Self::search), [`after_hit`](Self::after_hit) and [`spin_on`](Self::spin_on) do the polling of
/// an iteration, [`plan`](Self::plan) decides on the check or the wait after that, and [`ended`](Self::ended)
/// returns the policy's observation. The loop provides the steps, as a [`Search`](crate::Search) and a
/// [`Prepare`](crate::Prepare). All functions take a shared reference, because the steps may run callbacks
/// that use the loop.
///
/// ```
/// use aio_pollctl::{Pacing, PollParams};
///
/// let pacing = Pacing::new(true);
/// pacing.reset(&PollParams::unlimited());
/// assert!(pacing.checks.get().is_due(50_000), "no check for 50 us");
/// assert!(!pacing.pre_sleep.get().is_promising(), "nothing was served yet");
/// ```
#[derive(Debug, Default)]
pub struct Pacing {
    /// Decides when to check the descriptors.
    pub checks: Paced<CheckPacer>,
    /// Decides whether to check the descriptors for a moment before a sleep.
    pub pre_sleep: Paced<PreSleepSpin>,
    contention: Paced<Contention>,
    /// Set if the loop's clock is the system's. Another clock does not show when the thread runs.
    has_system_clock: bool,
    /// Set if contention is measured, because the thread may not have its core for itself.
    looks_for_contention: Cell<bool>,
    /// The length of a probe, within the maximum polling time.
    probe: Cell<Duration>,
    /// The round of the last test for idle sources.
    idle_tested: Cell<u32>,
    /// The end of the last wait whose end is known; handlers ran from then on.
    pub(crate) waited_until_ns: Cell<Option<u64>>,
    /// The reasons why the next wait does not spin first: bits of [`SkipSpin`](crate::SkipSpin).
    pub(crate) skips: Cell<u8>,
}

impl Pacing {
    /// Makes the state of a loop before its first [`reset`](Self::reset). `has_system_clock` states whether
    /// its clock is the system's: contention (rule A13) cannot be seen by any other clock.
    #[must_use]
    pub fn new(has_system_clock: bool) -> Self {
        Self {
            has_system_clock,
            ..Self::default()
        }
    }

    /// Adopts new parameters, and starts anew.
    pub fn reset(&self, params: &PollParams) {
        self.pre_sleep.0.set(PreSleepSpin::of(params));
        self.contention.0.set(Contention::new());
        self.looks_for_contention
            .set(self.has_system_clock && !params.exclusive_core);
        self.probe.set(params.max.min(Contention::PROBE));
    }

    /// Adopts another cost of a sleep.
    pub fn reprice(&self, params: &PollParams) {
        self.pre_sleep.step(|spin| spin.reprice(params));
    }

    /// Steps the observation of contention (rule A13). Returns `None` if contention is not measured.
    #[inline]
    pub(crate) fn contention<R>(&self, step: impl FnOnce(&mut Contention) -> R) -> Option<R> {
        self.looks_for_contention
            .get()
            .then(|| self.contention.step(step))
    }

    /// Returns whether the end of a search that finds work is estimated: on the system's clock, if contention
    /// is not measured, which would need a reading.
    #[inline]
    pub(crate) fn estimates_ends(&self) -> bool {
        self.has_system_clock && !self.looks_for_contention.get()
    }

    /// Returns whether to poll now, because polling is not suspended.
    #[inline]
    pub(crate) fn is_worth_it(&self, now_ns: u64) -> bool {
        self.contention(|one| one.is_worth_it(now_ns)) != Some(false)
    }

    /// Returns the length of a search for which the policy returns `budget`: a [probe](Contention::PROBE)
    /// takes longer, but at most `timeout`.
    #[inline]
    pub(crate) fn length(&self, budget: Duration, timeout: Option<Duration>) -> Duration {
        if self.looks_for_contention.get() && self.contention.get().is_probe() {
            let probe = self.probe.get();
            budget.max(timeout.map_or(probe, |timeout| probe.min(timeout)))
        } else {
            budget
        }
    }

    /// Returns whether polling may be suspended, or searches are seldom made. Does not read the clock.
    #[inline]
    pub(crate) fn is_contended(&self) -> bool {
        self.looks_for_contention.get() && self.contention.get().was_seen()
    }

    /// Returns `true` if a test for idle sources is due in round `round`.
    #[inline]
    pub(crate) fn is_idle_test_due(&self, round: u32) -> bool {
        COSTS.is_check_due(round.wrapping_sub(self.idle_tested.get()))
    }

    /// Returns the costs for testing idle sources, if a test is due in round `round`, and records the test.
    #[inline]
    pub(crate) fn idle_test(&self, round: u32) -> Option<&'static IdleCosts> {
        if !self.is_idle_test_due(round) {
            return None;
        }
        self.idle_tested.set(round);
        Some(&COSTS)
    }
}

/// A small state machine that a loop steps through a shared reference.
///
/// ```
/// use aio_pollctl::{Paced, PreSleepSpin};
///
/// let spin = Paced::<PreSleepSpin>::default();
/// spin.step(|spin| spin.served(true));
/// assert!(spin.get().is_promising());
/// ```
#[derive(Debug, Default)]
pub struct Paced<T: Copy>(Cell<T>);

impl<T: Copy> Paced<T> {
    /// Returns its present state.
    #[inline(always)]
    pub fn get(&self) -> T {
        self.0.get()
    }

    /// Steps it. A step that panics leaves the state as it was.
    #[inline(always)]
    pub fn step<R>(&self, step: impl FnOnce(&mut T) -> R) -> R {
        let mut state = self.0.get();
        let result = step(&mut state);
        self.0.set(state);
        result
    }
}
