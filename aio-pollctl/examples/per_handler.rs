//! A custom policy with state for each handler: it polls for twice the last wait of each handler, and resets
//! a handler that has been silent for some iterations.
//!
//! `cargo run -p aio-pollctl --example per_handler` shows its times in a loop with a fast and a slow handler.

use std::time::Duration;

use aio_pollctl::{HandlerMemory, Iteration, PollParams, PollPolicy};

/// Polls for twice the last wait of any handler that is not silent.
#[derive(Debug)]
pub(crate) struct Patient {
    max_ns: u64,
    /// Tells values stored since the last reset from older ones.
    generation: u32,
    budget_ns: u64,
    /// The longest time among the handlers of this iteration.
    longest_ns: u64,
}

impl Patient {
    /// The number of iterations without an event after which a handler is reset.
    pub(crate) const SILENCES: u64 = 8;

    pub(crate) fn new(params: PollParams) -> Self {
        Self {
            max_ns: params.max_ns(),
            generation: 1,
            budget_ns: 0,
            longest_ns: 0,
        }
    }
}

impl PollPolicy for Patient {
    fn name(&self) -> &'static str {
        "patient"
    }

    fn budget(&self) -> Duration {
        Duration::from_nanos(self.budget_ns)
    }

    fn is_per_handler(&self) -> bool {
        true
    }

    fn observe_handler(&mut self, memory: &mut HandlerMemory, had_event: bool, seen: Iteration) {
        let (time_ns, silences) = if had_event {
            let waited_ns = u64::try_from(seen.elapsed.as_nanos()).unwrap_or(u64::MAX);
            (waited_ns.saturating_mul(2).min(self.max_ns), 0)
        } else {
            (memory.time_ns(self.generation), memory.word(self.generation) + 1)
        };
        let time_ns = if silences < Self::SILENCES { time_ns } else { 0 };
        memory.store(self.generation, time_ns, silences);
        self.longest_ns = self.longest_ns.max(time_ns);
    }

    fn observe(&mut self, _: Iteration) {
        self.budget_ns = std::mem::take(&mut self.longest_ns);
    }

    fn reset(&mut self, params: PollParams) {
        *self = Self {
            generation: self.generation.wrapping_add(1),
            ..Self::new(params)
        };
    }
}

pub(crate) fn main() {
    let us = Duration::from_micros;
    let mut policy = Patient::new(PollParams::up_to(us(50)));
    let [mut fast, mut slow] = [HandlerMemory::default(); 2];
    println!("event of   waited   time of fast   time of slow   next budget");
    for iteration in 0..12 {
        let is_fast = iteration != 2;
        let (name, waited) = if is_fast {
            ("fast", us(3))
        } else {
            ("slow", us(20))
        };
        let seen = Iteration::new(waited, Duration::ZERO, true, false);
        policy.observe_handler(&mut fast, is_fast, seen);
        policy.observe_handler(&mut slow, !is_fast, seen);
        policy.observe(seen);
        println!(
            "{name:<8} {waited:>8.0?} {:>14.0?} {:>14.0?} {:>13.0?}",
            fast.time(),
            slow.time(),
            policy.budget()
        );
    }
}
