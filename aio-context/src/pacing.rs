//! [`Pacing`]: the state machines that pace an iteration, all of them `aio-pollctl`'s.

use std::cell::Cell;

use aio_pollctl::{CheckPacer, Contention, IdleCosts, PollParams, PreSleepSpin};
use aio_timers::Moment;

/// The costs of idle handlers.
const COSTS: IdleCosts = IdleCosts::TYPICAL;

/// When to check the descriptors while polling, whether to check them for a moment before a sleep, when to demote idle handlers, and
/// whether the thread has its core for itself.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    pub(crate) checks: Paced<CheckPacer>,
    pub(crate) spin: Paced<PreSleepSpin>,
    contention: Paced<Contention>,
    /// The loop's own clock is the system's. Another one does not tell when the thread runs.
    has_system_clock: bool,
    /// Contention is looked for: the thread may not have its core for itself.
    looks_for_contention: Cell<bool>,
    /// The round of the last test for idle handlers.
    idle_tested: Cell<u32>,
}

impl Pacing {
    pub(crate) fn new(has_system_clock: bool) -> Self {
        Self {
            has_system_clock,
            ..Self::default()
        }
    }

    /// Adopts new parameters.
    pub(crate) fn reset(&self, params: &PollParams) {
        self.spin.0.set(PreSleepSpin::of(params));
        self.contention.0.set(Contention::new());
        self.looks_for_contention
            .set(self.has_system_clock && !params.exclusive_core);
    }

    /// Adopts another cost of a sleep.
    pub(crate) fn reprice(&self, params: &PollParams) {
        self.spin.step(|spin| spin.reprice(params));
    }

    /// Steps what knows whether the thread has its core for itself (rule A13). `None` if that is not looked for.
    #[inline]
    pub(crate) fn contention<R>(&self, step: impl FnOnce(&mut Contention) -> R) -> Option<R> {
        self.looks_for_contention
            .get()
            .then(|| self.contention.step(step))
    }

    /// Whether to poll now: polling is not suspended.
    #[inline]
    pub(crate) fn is_worth_it(&self, now: Moment) -> bool {
        self.contention(|one| one.is_worth_it(now.as_nanos())) != Some(false)
    }

    /// Whether polling may be suspended, or searches are seldom made. Takes no reading of the clock.
    #[inline]
    pub(crate) fn is_contended(&self) -> bool {
        self.looks_for_contention.get() && self.contention.get().was_seen()
    }

    /// Whether the next test for idle handlers is due in round `round`.
    #[inline]
    pub(crate) fn is_idle_test_due(&self, round: u32) -> bool {
        COSTS.is_check_due(round.wrapping_sub(self.idle_tested.get()))
    }

    /// Records such a test. Returns the costs to test by.
    pub(crate) fn test_idle(&self, round: u32) -> IdleCosts {
        self.idle_tested.set(round);
        COSTS
    }
}

/// A small state machine that an iteration steps through a shared reference.
#[derive(Debug, Default)]
pub(crate) struct Paced<T: Copy>(Cell<T>);

impl<T: Copy> Paced<T> {
    #[inline(always)]
    pub(crate) fn get(&self) -> T {
        self.0.get()
    }

    /// Steps it.
    #[inline(always)]
    pub(crate) fn step<R>(&self, step: impl FnOnce(&mut T) -> R) -> R {
        let mut state = self.0.get();
        let result = step(&mut state);
        self.0.set(state);
        result
    }
}
