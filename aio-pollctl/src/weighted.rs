//! [`QemuWeighted`]: a weighted mean for each handler, as proposed for QEMU in 2026.
//!
//! An event moves the mean of its handler towards the wait. Without an event the mean grows by the wait, until it exceeds the maximum
//! and is dropped. The polling time of the loop grows at once to the longest mean of the handlers with an event, and shrinks if that
//! is much shorter.

use core::time::Duration;

use crate::growth::Divisor;
use crate::params::{or_default, saturating_ns};
use crate::{Effective, HandlerMemory, Iteration, PollParams, PollPolicy};

/// A mean for each handler. In a loop that reports no handlers there is one for all.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{Iteration, PollParams, PollPolicy, QemuWeighted};
///
/// let us = Duration::from_micros;
/// let mut policy = QemuWeighted::new(PollParams::up_to(us(50)));
/// policy.observe(Iteration::new(us(8), us(0), true, false));
/// assert_eq!(policy.budget(), us(8));
/// // The mean moves by an eighth of the difference.
/// policy.observe(Iteration::new(us(16), us(8), true, false));
/// assert_eq!(policy.budget(), us(16));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuWeighted {
    max_ns: u64,
    grow: u64,
    shrink: Divisor,
    weight: u32,
    generation: u32,
    ns: u64,
    /// The longest mean of the handlers with an event in this iteration.
    wanted_ns: u64,
    reported: bool,
    alone: HandlerMemory,
}

impl QemuWeighted {
    /// Makes the policy, which does not poll at first. Unlike the older policies it shrinks by 2 by default.
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        Self {
            max_ns: params.max_ns(),
            grow: u64::from(or_default(params.grow, 2)),
            shrink: Divisor::new(u64::from(or_default(params.shrink, 2))),
            weight: or_default(params.weight, 3).min(63),
            generation: 1,
            ns: 0,
            wanted_ns: 0,
            reported: false,
            alone: HandlerMemory::default(),
        }
    }

    fn mean(&self, before: u64, had_event: bool, block_ns: u64) -> u64 {
        let after = match (had_event, before) {
            (true, 0) => block_ns,
            (true, _) => (before - (before >> self.weight)).saturating_add(block_ns >> self.weight),
            (false, 0) => 0,
            (false, _) => before.saturating_add(block_ns),
        };
        if after >= self.max_ns { 0 } else { after }
    }

    fn adapt(&mut self, wanted: u64) {
        if wanted > self.ns {
            self.ns = self.ns.saturating_mul(self.grow).max(wanted).min(self.max_ns);
        } else {
            let shrunk = self.shrink.divide(self.ns);
            if wanted < shrunk {
                self.ns = shrunk;
            }
        }
    }
}

impl PollPolicy for QemuWeighted {
    fn name(&self) -> &'static str {
        "qemu-weighted"
    }

    fn budget(&self) -> Duration {
        Duration::from_nanos(self.ns)
    }

    fn is_per_handler(&self) -> bool {
        true
    }

    fn observe_handler(&mut self, memory: &mut HandlerMemory, had_event: bool, seen: Iteration) {
        self.reported = true;
        if self.max_ns == 0 {
            return;
        }
        let before = memory.time_ns(self.generation);
        let mean = self.mean(before, had_event, saturating_ns(seen.elapsed));
        memory.store(self.generation, mean, 0);
        if had_event {
            self.wanted_ns = self.wanted_ns.max(mean);
        }
    }

    fn observe(&mut self, seen: Iteration) {
        if !core::mem::take(&mut self.reported) {
            let mut alone = self.alone;
            self.observe_handler(&mut alone, true, seen);
            self.alone = alone;
            self.reported = false;
        }
        let wanted = core::mem::take(&mut self.wanted_ns);
        self.adapt(wanted);
    }

    fn reset(&mut self, params: PollParams) {
        let generation = self.generation.wrapping_add(1).max(1);
        *self = Self {
            generation,
            ..Self::new(params)
        };
    }

    /// Does nothing: the cost of a sleep has no influence on this policy.
    fn reprice(&mut self, _: PollParams) {}

    fn effective(&self) -> Effective {
        Effective {
            grow: Some(self.grow),
            shrink: Some(self.shrink.shown()),
            weight: Some(self.weight),
            ..Effective::new(self.name()).with_max_ns(self.max_ns)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn max(ns: u64) -> PollParams {
        PollParams::up_to(Duration::from_nanos(ns))
    }

    fn step(
        policy: &mut QemuWeighted,
        handlers: &mut [HandlerMemory],
        block_ns: u64,
        events: &[usize],
    ) -> u64 {
        let seen = Iteration::new(Duration::from_nanos(block_ns), Duration::ZERO, true, false);
        for (index, memory) in handlers.iter_mut().enumerate() {
            policy.observe_handler(memory, events.contains(&index), seen);
        }
        policy.observe(seen);
        u64::try_from(policy.budget().as_nanos()).unwrap()
    }

    /// Checks rows of a wait: the handlers with an event, the means after it, the polling time after it.
    fn check(params: PollParams, rows: &[(u64, &[usize], [u64; 2], u64)]) {
        let mut policy = QemuWeighted::new(params);
        let mut handlers = [HandlerMemory::default(); 2];
        for (number, (block, events, means, expected)) in rows.iter().enumerate() {
            let budget = step(&mut policy, &mut handlers, *block, events);
            let got = handlers.map(|memory| memory.time_ns(policy.generation));
            assert_eq!(
                (got, budget),
                (*means, *expected),
                "step {number}: {block} ns, {events:?}"
            );
        }
    }

    #[test]
    fn means_move_by_an_eighth_and_silence_accumulates() {
        check(
            max(32_768),
            &[
                (8000, &[0], [8000, 0], 8000),
                (16_000, &[0], [9000, 0], 16_000), // grown by 2, more than the mean
                (1000, &[1], [10_000, 1000], 8000), // the mean of those with an event counts: much shorter
                (4000, &[0], [9250, 5000], 16_000),
                (30_000, &[1], [0, 8125], 16_000), // silence up to the maximum: forgotten
                (40_000, &[1], [0, 12_110], 16_000),
                (1000, &[], [0, 13_110], 8000), // a timer: without a handler's event
            ],
        );
    }

    #[test]
    fn a_wait_of_the_maximum_starts_anew() {
        check(
            max(10_000),
            &[
                (9999, &[0], [9999, 0], 9999),
                (10_000, &[1], [0, 0], 4999),
                (10_001, &[0], [0, 0], 2499),
                (5000, &[0], [5000, 0], 5000),
            ],
        );
    }

    #[test]
    fn parameters_are_used() {
        check(
            max(32_768).with_weight(1).with_grow(3).with_shrink(4),
            &[
                (8000, &[0], [8000, 0], 8000),
                (9002, &[0], [8501, 0], 24_000),
                (2, &[0], [4252, 0], 6000),
                (2, &[0], [2127, 0], 6000),
            ],
        );
        assert_eq!(step(&mut QemuWeighted::new(PollParams::OFF), &mut [], 1, &[]), 0);
    }

    #[test]
    fn a_loop_that_reports_no_handler_counts_as_one_handler() {
        let mut policy = QemuWeighted::new(max(32_768));
        assert_eq!(step(&mut policy, &mut [], 8000, &[]), 8000);
        assert_eq!(step(&mut policy, &mut [], 16_000, &[]), 16_000);
        policy.reset(max(32_768));
        assert_eq!(policy.budget(), Duration::ZERO);
        assert_eq!(step(&mut policy, &mut [], 5000, &[]), 5000);
    }

    #[test]
    fn at_its_thresholds_the_time_stays() {
        check(
            max(32_768),
            &[
                (8000, &[0], [8000, 0], 8000),
                (8000, &[0], [8000, 0], 8000), // as long as it is
                (16_000, &[0], [9000, 0], 16_000),
                (8000, &[1], [17_000, 8000], 16_000), // half of it is not below half of it
            ],
        );
    }
}
