//! Computes a verdict from the figures.

use std::fmt;
use std::time::Duration;

use crate::gauge::Gauges;

/// The most bytes by which memory may grow from the warm-up to the end.
const MAY_GROW: u64 = 1 << 20;
/// The least permitted ratio of the last tenth's speed to the first's.
pub(crate) const MAY_SLOW_DOWN: f64 = 0.95;

/// The cost of a slice of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    events: u64,
    processor: Duration,
    time: Duration,
    /// The cost of a write and a read at about that time.
    yardstick: Duration,
}

impl Slice {
    pub(crate) fn between(began: &Gauges, ended: &Gauges, events: u64, yardstick: Duration) -> Self {
        Self {
            yardstick,
            events,
            processor: ended.processor.saturating_sub(began.processor),
            time: ended.now.duration_since(began.now),
        }
    }

    /// Returns the nanoseconds of processor time per event.
    fn cost_ns(&self) -> f64 {
        self.processor.as_nanos() as f64 / self.events.max(1) as f64
    }

    /// Returns the cost of an event in writes and reads of an eventfd.
    fn cost(&self) -> f64 {
        self.cost_ns() / self.yardstick.as_nanos() as f64
    }
}

/// Returns the cost of an undisturbed event: that of the slice below which a quarter of all slices are.
fn undisturbed(slices: &[Slice], cost: fn(&Slice) -> f64) -> f64 {
    let mut costs: Vec<f64> = slices.iter().map(cost).collect();
    costs.sort_by(f64::total_cmp);
    costs.get(costs.len() / 4).copied().unwrap_or(f64::NAN)
}

/// Returns the speed in the last tenth, for the progress line.
pub(crate) fn pace(slices: &[Slice]) -> String {
    let tenth = &slices[slices.len() - slices.len().min(20)..];
    let events: u64 = tenth.iter().map(|slice| slice.events).sum();
    let time: Duration = tenth.iter().map(|slice| slice.time).sum();
    format!(
        "{:.0} events a second, {:.0} ns of processor time each",
        events as f64 / time.as_secs_f64(),
        undisturbed(tenth, Slice::cost_ns)
    )
}

/// Returns the cost of an event in a tenth, in writes and reads of an eventfd.
pub(crate) fn cost(tenth: &[Slice]) -> f64 {
    undisturbed(tenth, Slice::cost)
}

/// Returns the ratio of the last tenth's speed to the first's.
pub(crate) fn speed(slices: &[Slice]) -> f64 {
    let tenth = slices.len() / 10;
    cost(&slices[..tenth]) / cost(&slices[slices.len() - tenth..])
}

/// The results of the run.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// In bytes.
    pub(crate) grown: u64,
    pub(crate) left_open: usize,
    /// The ratio of the last tenth's speed to the first's.
    pub(crate) speed: f64,
    pub(crate) slices: Vec<Slice>,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.grown <= MAY_GROW && self.left_open == 0 && self.speed >= MAY_SLOW_DOWN
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events: u64 = self.slices.iter().map(|slice| slice.events).sum();
        let time: Duration = self.slices.iter().map(|slice| slice.time).sum();
        write!(
            f,
            "{}: {events} events in {:.1} s, {:.0} a second; memory +{} KiB (at most {}); descriptors left open {}; \
             speed of the last tenth {:.1} % of the first (at least {:.0} %)",
            if self.is_good() { "good" } else { "BAD" },
            time.as_secs_f64(),
            events as f64 / time.as_secs_f64(),
            self.grown / 1024,
            MAY_GROW / 1024,
            self.left_open,
            self.speed * 100.0,
            MAY_SLOW_DOWN * 100.0,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes twenty slices, with the cost of an event from `cost`, in nanoseconds.
    fn slices(cost: impl Fn(u64) -> u64) -> Vec<Slice> {
        let slice = |number| Slice {
            events: 1,
            processor: Duration::from_nanos(cost(number)),
            time: Duration::from_nanos(cost(number)),
            yardstick: Duration::from_nanos(1),
        };
        (0..20).map(slice).collect()
    }

    fn is_good(grown: u64, left_open: usize, speed: f64) -> bool {
        let slices = slices(|_| 100);
        Verdict {
            grown,
            left_open,
            speed,
            slices,
        }
        .is_good()
    }

    #[test]
    fn each_limit_is_a_limit() {
        assert!(is_good(MAY_GROW, 0, MAY_SLOW_DOWN));
        assert!(!is_good(MAY_GROW + 1, 0, 1.0));
        assert!(!is_good(0, 1, 1.0));
        assert!(!is_good(0, 0, 0.949));
        assert!(!is_good(0, 0, f64::NAN), "a speed that is unknown is not good");
    }

    #[test]
    fn speed_is_the_last_tenth_over_the_first() {
        assert_eq!(speed(&slices(|_| 100)), 1.0);
        assert_eq!(speed(&slices(|number| if number < 18 { 50 } else { 100 })), 0.5);
        assert!(speed(&[]).is_nan());
    }
}
