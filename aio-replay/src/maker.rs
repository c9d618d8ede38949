//! [`Maker`]: generates the traces of a family.

use crate::{Random, Role, Trace};

/// One microsecond in nanoseconds.
pub(super) const US: f64 = 1000.0;

/// Generates traces of one role and one length from one seed.
pub(super) struct Maker {
    pub(super) role: Role,
    pub(super) seed: u64,
    pub(super) count: usize,
    pub(super) traces: Vec<Trace>,
}

impl Maker {
    pub(super) fn new(role: Role, seed: u64, count: usize) -> Self {
        Self {
            role,
            seed,
            count,
            traces: Vec::new(),
        }
    }

    /// Generates a trace with `fill`, which adds all waits.
    pub(super) fn make(
        &mut self,
        family: &'static str,
        name: &str,
        fill: impl FnOnce(&mut Trace, &mut Random),
    ) {
        let mut trace = Trace::new(name, family, self.role, self.seed);
        fill(&mut trace, &mut Random::named(self.seed, name));
        self.traces.push(trace);
    }

    /// Generates a trace with `next`, which returns one wait after the other.
    pub(super) fn each(
        &mut self,
        family: &'static str,
        name: &str,
        mut next: impl FnMut(&mut Random) -> f64,
    ) {
        let count = self.count;
        self.make(family, name, |trace, random| {
            for _ in 0..count {
                trace.push(next(random) as u64, 0);
            }
        });
    }
}
