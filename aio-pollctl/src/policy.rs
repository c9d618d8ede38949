//! The [`PollPolicy`] contract, and what a policy is told.

use core::fmt;
use core::time::Duration;

use crate::{Effective, PollParams};

/// What happened in one iteration that was allowed to wait. The first four are always known; a loop adds what else it
/// knows with the `with_` methods, and a policy makes do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Iteration {
    /// How long there was nothing to do: polling and waiting together, without any handler's own time.
    pub elapsed: Duration,
    /// The part of it that was spent polling.
    pub spun: Duration,
    /// Whether the loop slept.
    pub blocked: bool,
    /// Whether polling found something.
    pub hit: bool,
    /// How far away the next timer was when this began, if there was one.
    pub deadline: Option<Duration>,
    /// Whether it was the timer that ended the wait, rather than an event.
    pub timed_out: bool,
    /// How many events were found; 0 if not counted.
    pub events: u32,
    /// Which handler had the first event: any number that is the same next time.
    pub source: Option<u32>,
    /// How long handlers ran since the wait before.
    pub busy: Duration,
}

impl Iteration {
    /// What happened.
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
        }
    }

    /// The next timer was this far away, and did or did not end the wait.
    #[must_use]
    pub const fn with_deadline(self, deadline: Duration, timed_out: bool) -> Self {
        Self {
            deadline: Some(deadline),
            timed_out,
            ..self
        }
    }

    /// So many events were found.
    #[must_use]
    pub const fn with_events(self, events: u32) -> Self {
        Self { events, ..self }
    }

    /// This handler had the first event.
    #[must_use]
    pub const fn with_source(self, source: u32) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    /// Handlers ran for so long since the wait before.
    #[must_use]
    pub const fn with_busy(self, busy: Duration) -> Self {
        Self { busy, ..self }
    }
}

/// What a policy stores about one polled handler: a polling time, and a word of its own. The loop keeps one beside each
/// handler, starts with the default, and hands it to [`PollPolicy::observe_handler`].
///
/// The loop does not clear it when the policy is [reset](PollPolicy::reset). Instead a policy stores under a *generation*,
/// any number that it changes with each reset: what was stored under another one reads as zero.
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
    /// The time that was stored last, under whatever generation: what the loop shows as the handler's polling time.
    #[must_use]
    pub const fn time(&self) -> Duration {
        Duration::from_nanos(self.time_ns)
    }

    /// The time that was stored under `generation`, in nanoseconds; 0 if there is none.
    #[inline]
    #[must_use]
    pub const fn time_ns(&self, generation: u32) -> u64 {
        if self.generation == generation {
            self.time_ns
        } else {
            0
        }
    }

    /// The policy's own word that was stored under `generation`; 0 if there is none.
    #[inline]
    #[must_use]
    pub const fn word(&self, generation: u32) -> u64 {
        if self.generation == generation {
            self.word
        } else {
            0
        }
    }

    /// Stores a polling time in nanoseconds and a word, in place of what was there.
    ///
    /// The loop shows the time (see [`time`](Self::time)); the word means what the policy wants it to.
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
/// In each outermost iteration that may wait, the loop calls [`budget_until`](Self::budget_until), polls and perhaps sleeps, and
/// then calls [`observe`](Self::observe). If [`is_per_handler`](Self::is_per_handler) is true, the loop first calls
/// [`observe_handler`](Self::observe_handler) for every promoted handler, after dispatch. The example `per_handler` is a policy
/// of this kind.
///
/// Implementations MUST ensure that the budget never exceeds [`PollParams::max`], and is zero when that is zero.
pub trait PollPolicy: fmt::Debug {
    /// A short name, as options spell it.
    fn name(&self) -> &'static str;

    /// How long the next wait may be spent polling.
    fn budget(&self) -> Duration;

    /// The same, if the next timer is `deadline` away: never longer than that.
    fn budget_until(&self, deadline: Option<Duration>) -> Duration {
        let budget = self.budget();
        deadline.map_or(budget, |deadline| budget.min(deadline))
    }

    /// Learns from an iteration.
    fn observe(&mut self, seen: Iteration);

    /// Whether the loop calls [`observe_handler`](Self::observe_handler). The loop reads it whenever parameters are set.
    fn is_per_handler(&self) -> bool {
        false
    }

    /// Learns about one promoted handler, which had an event in this iteration or not. `memory` is what this policy has stored
    /// about the same handler.
    fn observe_handler(&mut self, memory: &mut HandlerMemory, had_event: bool, seen: Iteration) {
        let _ = (memory, had_event, seen);
    }

    /// Starts anew with other parameters.
    fn reset(&mut self, params: PollParams);

    /// What the parameters came to.
    fn effective(&self) -> Effective {
        Effective::new(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_loop_adds_is_told() {
        let us = Duration::from_micros;
        let seen = Iteration::new(us(1), us(0), true, false)
            .with_deadline(us(2), true)
            .with_events(3)
            .with_source(4)
            .with_busy(us(5));
        assert_eq!((seen.deadline, seen.timed_out), (Some(us(2)), true));
        assert_eq!((seen.events, seen.source, seen.busy), (3, Some(4), us(5)));
    }
}
