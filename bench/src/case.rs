//! What is measured, and how: contestants take turns, round by round, each doing the same work so often that a turn is long
//! enough to be timed.

use std::time::{Duration, Instant};

/// How long a turn should take.
const TURN: Duration = Duration::from_millis(8);

/// Does the work of a case `times` times and says how long that took.
pub(crate) type Run = Box<dyn FnMut(u64) -> Duration>;

/// One workload at one size, and everybody who does it.
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) workload: String,
    pub(crate) n: u64,
    /// Operations in one unit of work: figures are per operation.
    pub(crate) operations: u64,
    pub(crate) contestants: Vec<Contestant>,
}

/// Somebody who does the work, made when its case is measured.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) make: Box<dyn FnOnce() -> anyhow::Result<Run>>,
}

/// What came of a contestant: nanoseconds per operation, round by round.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) ns: Vec<f64>,
}

impl Case {
    pub(crate) fn new(id: &'static str, workload: impl Into<String>, n: u64) -> Self {
        Self {
            id,
            workload: workload.into(),
            n,
            operations: 1,
            contestants: Vec::new(),
        }
    }

    pub(crate) fn operations(mut self, operations: u64) -> Self {
        self.operations = operations;
        self
    }

    pub(crate) fn by(
        mut self,
        name: &'static str,
        make: impl FnOnce() -> anyhow::Result<Run> + 'static,
    ) -> Self {
        self.contestants.push(Contestant {
            name,
            make: Box::new(make),
        });
        self
    }

    /// Measures everybody in turns. Somebody who cannot be made is left out with a line that says why.
    pub(crate) fn measure(self, rounds: usize, skipped: &mut Vec<String>) -> Vec<Outcome> {
        let mut runs = Vec::new();
        for contestant in self.contestants {
            match (contestant.make)() {
                Ok(run) => runs.push((contestant.name, run)),
                Err(why) => skipped.push(format!("{} {} {}: {why:#}", self.id, self.workload, contestant.name)),
            }
        }
        let times: Vec<u64> = runs.iter_mut().map(|(_, run)| calibrate(run)).collect();
        let mut outcomes: Vec<Outcome> =
            runs.iter().map(|(name, _)| Outcome { name, ns: Vec::new() }).collect();
        for round in 0..rounds {
            for at in 0..runs.len() {
                // Everybody is first, last and in between.
                let at = (at + round) % runs.len();
                let took = (runs[at].1)(times[at]);
                let operations = times[at] * self.operations;
                outcomes[at].ns.push(took.as_nanos() as f64 / operations as f64);
            }
        }
        outcomes
    }
}

/// How often a contestant does its work in a turn. Warms it up, too.
fn calibrate(run: &mut Run) -> u64 {
    let mut times = 1;
    loop {
        let took = run(times);
        if took >= TURN / 4 {
            let more = TURN.as_nanos() as u64 * times / took.as_nanos().max(1) as u64;
            return more.max(1);
        }
        times *= 4;
    }
}

/// Times `work`, done `times` times.
pub(crate) fn timed(times: u64, mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        work();
    }
    began.elapsed()
}
