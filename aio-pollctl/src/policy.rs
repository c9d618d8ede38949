//! The [`PollPolicy`] contract, and the [`Iteration`] that a policy observes.

use core::fmt;
use core::time::Duration;

use crate::{Effective, PollParams};

/// One iteration that was allowed to wait.
///
/// The first four fields are always set. The `with_` methods set the others, as far as the loop has them. A policy must work
/// without them.
///
/// ```
/// use core::time::Duration;
/// use aio_pollctl::Iteration;
///
/// // 50 us without work, 20 of them polling, then a sleep that an event ended.
/// let us = Duration::from_micros;
/// let iteration = Iteration::new(us(50), us(20), true, true).with_events(3);
/// assert_eq!((iteration.elapsed, iteration.spun), (us(50), us(20)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Iteration {
    /// The time without work: polling and waiting together, without the running time of handlers.
    pub elapsed: Duration,
    /// The part of `elapsed` that was spent polling.
    pub spun: Duration,
    /// Whether the loop slept.
    pub blocked: bool,
    /// Whether polling found work.
    pub hit: bool,
    /// The time until the next timer at the start of the iteration, if there was a timer.
    pub deadline: Option<Duration>,
    /// Whether the timer ended the wait, not an event.
    pub timed_out: bool,
    /// The number of events; 0 if the loop does not count them.
    pub events: u32,
    /// The handler of the first event: any number that identifies it in later iterations.
    pub source: Option<u32>,
    /// The running time of handlers since the previous wait.
    pub busy: Duration,
    /// The number of polled handlers whose peers have kicked because the loop slept (rule A11); `None` if the loop does not count them.
    pub kicks: Option<u32>,
}

impl Iteration {
    /// Makes an iteration with the fields that every loop has.
    #[must_use]
    pub const fn new(elapsed: Duration, spun: Duration, blocked: bool, hit: bool) -> Self {
        Self {
            elapsed,
            spun,
            blocked,
            hit,
            deadline: None,
            timed_out: false,
            events: 0,
            source: None,
            busy: Duration::ZERO,
            kicks: None,
        }
    }

    /// Sets the time until the next timer, and whether the timer ended the wait.
    #[must_use]
    pub const fn with_deadline(self, deadline: Duration, timed_out: bool) -> Self {
        Self {
            deadline: Some(deadline),
            timed_out,
            ..self
        }
    }

    /// Sets the number of events.
    #[must_use]
    pub const fn with_events(self, events: u32) -> Self {
        Self { events, ..self }
    }

    /// Sets the handler of the first event.
    #[must_use]
    pub const fn with_source(self, source: u32) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    /// Sets the running time of handlers since the previous wait.
    #[must_use]
    pub const fn with_busy(self, busy: Duration) -> Self {
        Self { busy, ..self }
    }

    /// Sets the number of polled handlers whose peers have kicked because the loop slept.
    #[must_use]
    pub const fn with_kicks(self, kicks: u32) -> Self {
        Self {
            kicks: Some(kicks),
            ..self
        }
    }
}

/// The state of a policy for one polled handler: a polling time and a word.
///
/// The loop keeps one beside each handler, starts with the default, and passes it to [`PollPolicy::observe_handler`]. The loop does
/// not clear it when the policy is [reset](PollPolicy::reset). Instead the policy stores under a *generation*, any number that it
/// changes with each reset. Values stored under another generation read as zero.
///
/// ```
/// # use aio_pollctl::HandlerMemory;
/// let mut memory = HandlerMemory::default();
/// let generation = 1;
/// memory.store(generation, 4000, 7);
/// assert_eq!((memory.time_ns(generation), memory.word(generation)), (4000, 7));
/// assert_eq!((memory.time_ns(generation + 1), memory.word(generation + 1)), (0, 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HandlerMemory {
    time_ns: u64,
    word: u64,
    generation: u32,
}

impl HandlerMemory {
    /// Returns the time stored last, under any generation. The loop reports it as the handler's polling time.
    #[must_use]
    pub const fn time(&self) -> Duration {
        Duration::from_nanos(self.time_ns)
    }

    /// Returns the time stored under `generation`, in nanoseconds; 0 if there is none.
    #[inline]
    #[must_use]
    pub const fn time_ns(&self, generation: u32) -> u64 {
        if self.generation == generation {
            self.time_ns
        } else {
            0
        }
    }

    /// Returns the word stored under `generation`; 0 if there is none.
    #[inline]
    #[must_use]
    pub const fn word(&self, generation: u32) -> u64 {
        if self.generation == generation {
            self.word
        } else {
            0
        }
    }

    /// Stores a polling time in nanoseconds and a word, and replaces the previous ones.
    ///
    /// The loop reports the time (see [`time`](Self::time)). The policy defines the meaning of the word.
    #[inline]
    pub const fn store(&mut self, generation: u32, time_ns: u64, word: u64) {
        *self = Self {
            time_ns,
            word,
            generation,
        };
    }
}

/// Decides how long to poll.
///
/// In each outermost iteration that may wait, the loop polls for the [`budget`](Self::budget), or before a
/// timer for [`budget_until`](Self::budget_until), and may sleep. It then calls [`observe`](Self::observe)
/// and `budget` again. The budget MUST change only in `observe`, `observe_handler`, [`reset`](Self::reset)
/// and [`reprice`](Self::reprice). If [`is_per_handler`](Self::is_per_handler) returns `true`, the loop first
/// calls [`observe_handler`](Self::observe_handler) for every promoted handler, after dispatch. The example
/// `per_handler` is a policy of this kind.
///
/// Implementations MUST ensure that the budget never exceeds [`PollParams::max`], and is zero if the maximum is zero.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, PollParams, PollPolicy};
///
/// /// Polls for twice the last wait.
/// #[derive(Debug)]
/// struct Twice {
///     max: Duration,
///     budget: Duration,
/// }
///
/// impl PollPolicy for Twice {
///     fn name(&self) -> &'static str {
///         "twice"
///     }
///     fn budget(&self) -> Duration {
///         self.budget
///     }
///     fn observe(&mut self, seen: Iteration) {
///         self.budget = seen.elapsed.saturating_mul(2).min(self.max);
///     }
///     fn reset(&mut self, params: PollParams) {
///         *self = Self { max: params.max, budget: Duration::ZERO };
///     }
/// }
///
/// let us = Duration::from_micros;
/// let mut policy = Twice { max: us(50), budget: us(0) };
/// policy.observe(Iteration::new(us(4), us(0), true, false));
/// assert_eq!(policy.budget(), us(8));
/// policy.observe(Iteration::new(us(900), us(8), true, false));
/// assert_eq!((policy.budget(), policy.budget_until(Some(us(20)))), (us(50), us(20)));
/// ```
pub trait PollPolicy: fmt::Debug {
    /// Returns a short name, as options spell it.
    fn name(&self) -> &'static str;

    /// Returns the polling time before the next wait.
    fn budget(&self) -> Duration;

    /// Returns the polling time before the next wait if the next timer is `deadline` away; at most
    /// `deadline`.
    fn budget_until(&self, deadline: Option<Duration>) -> Duration {
        let budget = self.budget();
        deadline.map_or(budget, |deadline| budget.min(deadline))
    }

    /// Adapts the policy to an iteration.
    fn observe(&mut self, seen: Iteration);

    /// Returns whether the loop calls [`observe_handler`](Self::observe_handler). The loop reads this
    /// whenever it sets parameters.
    fn is_per_handler(&self) -> bool {
        false
    }

    /// Adapts the policy to one promoted handler, with or without an event in this iteration. `memory` is the
    /// state that this policy has stored for the handler. [`Iteration::kicks`] is that of this handler: 1 if
    /// its peer has kicked it because the loop slept, else 0 (`None` if the loop did not sleep).
    fn observe_handler(&mut self, memory: &mut HandlerMemory, had_event: bool, seen: Iteration) {
        let _ = (memory, had_event, seen);
    }

    /// Restarts with other parameters.
    fn reset(&mut self, params: PollParams);

    /// Adopts parameters that differ only in [`PollParams::wake`], because the cost of a sleep was measured
    /// again. A policy that learns keeps its state. The default is a [`reset`](Self::reset).
    fn reprice(&mut self, params: PollParams) {
        self.reset(params);
    }

    /// Returns the values that the policy works with, after it has replaced zeros by defaults.
    fn effective(&self) -> Effective {
        Effective::new(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measurements_of_a_loop_are_kept() {
        let us = Duration::from_micros;
        let seen = Iteration::new(us(1), us(0), true, false)
            .with_deadline(us(2), true)
            .with_events(3)
            .with_source(4)
            .with_busy(us(5))
            .with_kicks(6);
        assert_eq!(seen.kicks, Some(6));
        assert_eq!((seen.deadline, seen.timed_out), (Some(us(2)), true));
        assert_eq!((seen.events, seen.source, seen.busy), (3, Some(4), us(5)));
    }
}
