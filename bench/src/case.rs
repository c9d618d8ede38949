//! Cases and their measurement. Contestants take turns, round by round. Each repeats the same work until a
//! turn is long enough to be timed.

use std::time::{Duration, Instant};

/// The intended time of a turn.
const TURN: Duration = Duration::from_millis(8);

/// The size above which contestants exist one at a time, because a process may have 20,000 descriptors.
const CROWDED: u64 = 500;

/// A function that does the work of a case `times` times and returns the time that it took.
pub(crate) type Run = Box<dyn FnMut(u64) -> Duration>;

/// One workload at one size, and its contestants.
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) workload: String,
    pub(crate) n: u64,
    /// The operations in one unit of work. Figures are per operation.
    pub(crate) operations: u64,
    pub(crate) contestants: Vec<Contestant>,
}

/// An implementation of the workload. It is made when its case is measured.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) make: Box<dyn Fn() -> anyhow::Result<Run>>,
}

/// The result of a contestant: nanoseconds per operation, round by round.
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

    pub(crate) fn by(mut self, name: &'static str, make: impl Fn() -> anyhow::Result<Run> + 'static) -> Self {
        self.contestants.push(Contestant {
            name,
            make: Box::new(make),
        });
        self
    }

    /// Measures all contestants in turns. If one cannot be made, it is left out, and a line in `skipped`
    /// names the reason.
    pub(crate) fn measure(self, rounds: usize, skipped: &mut Vec<String>) -> Vec<Outcome> {
        // There are not enough descriptors for all contestants at the same time.
        let crowded = self.n > CROWDED;
        let mut entrants = Vec::new();
        for contestant in self.contestants {
            match (contestant.make)() {
                Ok(mut run) => {
                    let times = calibrate(&mut run);
                    let run = (!crowded).then_some(run);
                    entrants.push(Entrant {
                        contestant,
                        times,
                        run,
                        ns: Vec::new(),
                    });
                }
                Err(why) => skipped.push(format!(
                    "{} {} {}: {why:#}",
                    self.id, self.workload, contestant.name
                )),
            }
        }
        for round in 0..rounds {
            for at in 0..entrants.len() {
                // Each contestant is first, last and in between.
                let at = (at + round) % entrants.len();
                entrants[at].take_turn(self.operations);
            }
        }
        let outcome = |entrant: Entrant| Outcome {
            name: entrant.contestant.name,
            ns: entrant.ns,
        };
        entrants.into_iter().map(outcome).collect()
    }
}

/// A contestant during a measurement.
struct Entrant {
    contestant: Contestant,
    times: u64,
    /// `None` if a new one is made for each turn.
    run: Option<Run>,
    ns: Vec<f64>,
}

impl Entrant {
    fn take_turn(&mut self, operations: u64) {
        let mut fresh = None;
        let run = match &mut self.run {
            Some(run) => run,
            None => {
                let Ok(mut made) = (self.contestant.make)() else {
                    return;
                };
                made(self.times / 8 + 1);
                fresh.insert(made)
            }
        };
        let took = run(self.times);
        self.ns
            .push(took.as_nanos() as f64 / (self.times * operations) as f64);
    }
}

/// Returns the number of repetitions in a turn. Also warms up the contestant.
fn calibrate(run: &mut Run) -> u64 {
    // The first repetitions differ: memory is fetched, and a backend chooses its mode.
    run(300);
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

/// Measures `times` repetitions of `work`.
pub(crate) fn timed(times: u64, mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        work();
    }
    began.elapsed()
}
