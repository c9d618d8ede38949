//! [`Qemu10`]: the rule of `qemu-2020` for each handler separately, as in QEMU 10.
//!
//! An iteration polls for the longest time of all promoted handlers. After dispatch the policy adapts only the handlers with an
//! event, by the time that the whole loop waited.

use core::time::Duration;

use crate::growth::Growth;
use crate::params::saturating_ns;
use crate::{Effective, HandlerMemory, Iteration, PollParams, PollPolicy};

/// Grows and shrinks a polling time for each handler. In a loop that reports no handlers there is one time for all.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use aio_pollctl::{HandlerMemory, Iteration, PollParams, PollPolicy, Qemu10};
///
/// let us = Duration::from_micros;
/// let mut policy = Qemu10::new(PollParams::up_to(us(32)));
/// let [mut disk, mut network] = [HandlerMemory::default(); 2];
/// let seen = Iteration::new(us(10), us(0), true, false);
/// policy.observe_handler(&mut disk, true, seen);
/// policy.observe_handler(&mut network, false, seen);
/// policy.observe(seen);
/// assert_eq!((disk.time(), network.time(), policy.budget()), (us(4), us(0), us(4)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu10 {
    growth: Growth,
    generation: u32,
    /// The longest time among the promoted handlers of the last iteration.
    ns: u64,
    /// The longest time among the handlers reported so far in this iteration.
    longest_ns: u64,
    reported: bool,
}

impl Qemu10 {
    /// Makes the policy, which does not poll at first.
    #[must_use]
    pub fn new(params: PollParams) -> Self {
        Self {
            growth: Growth::new(params),
            generation: 1,
            ns: 0,
            longest_ns: 0,
            reported: false,
        }
    }
}

impl PollPolicy for Qemu10 {
    fn name(&self) -> &'static str {
        "qemu-10"
    }

    fn budget(&self) -> Duration {
        Duration::from_nanos(self.ns)
    }

    fn is_per_handler(&self) -> bool {
        true
    }

    fn observe_handler(&mut self, memory: &mut HandlerMemory, had_event: bool, seen: Iteration) {
        self.reported = true;
        if self.growth.max_ns == 0 {
            return;
        }
        let mut ns = memory.time_ns(self.generation);
        if had_event {
            ns = self.growth.next(ns, saturating_ns(seen.elapsed));
            memory.store(self.generation, ns, 0);
        }
        self.longest_ns = self.longest_ns.max(ns);
    }

    fn observe(&mut self, seen: Iteration) {
        if core::mem::take(&mut self.reported) {
            self.ns = core::mem::take(&mut self.longest_ns);
        } else if self.growth.max_ns != 0 {
            self.ns = self.growth.next(self.ns, saturating_ns(seen.elapsed));
        }
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
        self.growth.effective(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn max(ns: u64) -> PollParams {
        PollParams::up_to(Duration::from_nanos(ns))
    }

    /// Runs one iteration that waited `block_ns` and found events of the handlers in `events`. Returns the
    /// budget after it.
    fn step(policy: &mut Qemu10, handlers: &mut [HandlerMemory], block_ns: u64, events: &[usize]) -> u64 {
        let seen = Iteration::new(Duration::from_nanos(block_ns), Duration::ZERO, true, false);
        for (index, memory) in handlers.iter_mut().enumerate() {
            policy.observe_handler(memory, events.contains(&index), seen);
        }
        policy.observe(seen);
        u64::try_from(policy.budget().as_nanos()).unwrap()
    }

    #[test]
    fn each_handler_has_its_own_time_and_the_longest_counts() {
        let mut policy = Qemu10::new(max(32_768));
        let mut handlers = [HandlerMemory::default(); 2];
        for (step_number, (block, events, expected)) in [
            (1000, &[0][..], 4000),
            (5000, &[0], 8000),    // 0: 8000
            (5000, &[1], 8000),    // 1: 4000
            (99_999, &[1], 8000),  // 1: gives up, 0 does not
            (99_999, &[], 8000),   // without a handler's event: a timer
            (99_999, &[0], 0),     // 0 gives up
            (1000, &[0, 1], 4000), // both begin
            (99_999, &[0, 1], 0),  // both give up
        ]
        .into_iter()
        .enumerate()
        {
            let budget = step(&mut policy, &mut handlers, block, events);
            assert_eq!(
                budget, expected,
                "step {step_number}: {block} ns, events of {events:?}"
            );
        }
    }

    #[test]
    fn a_handler_that_leaves_no_longer_counts() {
        let mut policy = Qemu10::new(max(32_768));
        let mut handlers = [HandlerMemory::default(); 2];
        assert_eq!(step(&mut policy, &mut handlers, 1000, &[0]), 4000);
        assert_eq!(step(&mut policy, &mut handlers[1..], 1000, &[]), 0);
        assert_eq!(
            step(&mut policy, &mut handlers, 1000, &[]),
            4000,
            "and counts again when it is back"
        );
    }

    #[test]
    fn new_parameters_reset_the_memory_of_handlers() {
        let mut policy = Qemu10::new(max(32_768));
        let mut handlers = [HandlerMemory::default(); 1];
        assert_eq!(step(&mut policy, &mut handlers, 1000, &[0]), 4000);
        policy.reset(max(2000));
        assert_eq!(policy.budget(), Duration::ZERO);
        assert_eq!(step(&mut policy, &mut handlers, 99_999, &[]), 0);
        assert_eq!(step(&mut policy, &mut handlers, 1000, &[0]), 2000);
        policy.reset(PollParams::OFF);
        assert_eq!(step(&mut policy, &mut handlers, 1000, &[0]), 0);
    }

    #[test]
    fn without_reports_it_is_the_controller_of_2020() {
        let mut policy = Qemu10::new(max(32_768));
        let mut other = crate::Qemu2020::new(max(32_768));
        for block in [1, 5000, 99_999, 3000, 4001, 32_768, 32_767, 9000] {
            assert_eq!(step(&mut policy, &mut [], block, &[]), {
                let elapsed = Duration::from_nanos(block);
                other.observe(Iteration::new(elapsed, Duration::ZERO, true, false));
                u64::try_from(other.budget().as_nanos()).unwrap()
            });
        }
    }
}
