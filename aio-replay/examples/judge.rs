//! Judges a polling policy from outside the workspace beside the built-in ones.
//!
//! `cargo run --release -p aio-replay --example judge [FILE]`: the file has one wait in nanoseconds per line, as `blockd --record-waits`
//! writes it. Without a file, the judge takes families of waits that `learned` was not tuned for.

use std::time::Duration;

use aio_pollctl::{HandlerMemory, Iteration, Policy, PollParams, PollPolicy};
use aio_replay::{Trace, families, params_for, replay};

/// Polls for twice the mean wait of a handler, if a sleep costs more than the mean.
#[derive(Debug, Default)]
struct Mean {
    params: PollParams,
    /// Tells the memory stored since the last reset from older memory.
    generation: u32,
    budget_ns: u64,
    /// The longest time among the handlers of this iteration.
    longest_ns: u64,
}

impl PollPolicy for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn budget(&self) -> Duration {
        Duration::from_nanos(self.budget_ns)
    }

    fn is_per_handler(&self) -> bool {
        true
    }

    fn observe_handler(&mut self, memory: &mut HandlerMemory, had_event: bool, seen: Iteration) {
        let mut mean_ns = memory.word(self.generation);
        if had_event {
            let late = if seen.blocked {
                self.params.wake_or_assumed().latency
            } else {
                Duration::ZERO
            };
            let waited = seen.elapsed.saturating_sub(late);
            let waited_ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
            mean_ns = mean_ns - mean_ns / 8 + waited_ns / 8;
        }
        let pays = mean_ns <= self.params.break_even_ns();
        let time_ns = if pays {
            mean_ns.saturating_mul(2).min(self.params.max_ns())
        } else {
            0
        };
        memory.store(self.generation, time_ns, mean_ns);
        self.longest_ns = self.longest_ns.max(time_ns);
    }

    fn observe(&mut self, _: Iteration) {
        self.budget_ns = std::mem::take(&mut self.longest_ns);
    }

    fn reset(&mut self, params: PollParams) {
        let generation = self.generation.wrapping_add(1);
        *self = Self {
            params,
            generation,
            ..Self::default()
        };
    }
}

/// Returns a built-in policy, or the one above.
fn named(name: &str, params: PollParams) -> Box<dyn PollPolicy> {
    let mut mean = Mean::default();
    mean.reset(params);
    match Policy::by_name(name, params) {
        Some(known) => Box::new(known),
        None => Box::new(mean),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const WAKE_COST_NS: u64 = 10_000;
    let traces = match std::env::args().nth(1) {
        Some(file) => vec![Trace::parse(&file, &std::fs::read_to_string(&file)?)?],
        None => families::held_out(1, 5_000),
    };
    println!("cost over the clairvoyant optimum; a sleep costs 10 us");
    println!("{:<12} {:>8} {:>8}", "policy", "mean", "worst");
    for name in ["mean", "learned", "ewma", "ski-rental", "never"] {
        let cost = |trace| replay(trace, WAKE_COST_NS, &mut *named(name, params_for(WAKE_COST_NS))).ratio();
        let ratios: Vec<f64> = traces.iter().map(cost).collect();
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        let worst = ratios.into_iter().fold(1.0, f64::max);
        println!("{name:<12} {mean:>8.3} {worst:>8.3}");
    }
    Ok(())
}
