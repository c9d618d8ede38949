//! Families of traces: typical loads of event loops, and adversarial ones.
//!
//! The constants of `learned` were chosen on [`tuned`] and validated on [`held_out`], together 56 traces. Its selection of banks was
//! chosen on [`compared`]. No choice was made on [`fresh`]. Families in which a wait depends on more than one previous wait are in
//! `mixes`.

use crate::maker::{Maker, US};
use crate::mixes;
use crate::{Role, Trace};

/// Returns the families on which `learned` was tuned: 38 traces.
#[must_use]
pub fn tuned(seed: u64, count: usize) -> Vec<Trace> {
    let mut maker = Maker::new(Role::Tuned, seed, count);
    for rate in [1, 2, 5, 10, 20, 50, 100, 200, 500] {
        let mean = 1e6 / f64::from(rate);
        maker.each("poisson", &format!("poisson-{rate}k"), |random| {
            random.exponential(mean)
        });
    }
    for rate in [1, 2, 5, 10, 20, 50, 100, 200] {
        let mean = 1e6 / f64::from(rate);
        maker.each("periodic", &format!("periodic-{rate}k"), |random| {
            mean * random.between(0.98, 1.02)
        });
    }
    bursts(&mut maker);
    for (alpha, least) in [(1.2, 2.0), (1.5, 2.0), (1.2, 10.0), (2.0, 10.0)] {
        maker.each("pareto", &format!("pareto-{alpha}-{least}us"), |random| {
            random.pareto(alpha, least * US).min(1e9)
        });
    }
    for median in [10.0, 20.0, 80.0] {
        for sigma in [0.3, 0.8] {
            maker.each("device", &format!("device-{median}us-{sigma}"), |random| {
                random.log_normal(median * US, sigma)
            });
        }
    }
    phases(&mut maker);
    mixes::two_sources(&mut maker);
    maker.traces
}

/// Short waits inside bursts, long ones between them.
fn bursts(maker: &mut Maker) {
    for (name, long, gap, idle) in [
        ("burst-4-2us", 4, 2.0, 200.0),
        ("burst-8-5us", 8, 5.0, 500.0),
        ("burst-16-10us", 16, 10.0, 1000.0),
        ("burst-64-10us", 64, 10.0, 1000.0),
        ("burst-32-2us", 32, 2.0, 100.0),
    ] {
        let mut left = 0;
        maker.each("bursts", name, |random| {
            if left == 0 {
                left = 1 + random.below(2 * long);
                return random.exponential(idle * US);
            }
            left -= 1;
            gap * US * random.between(0.8, 1.2)
        });
    }
    let mut first = false;
    maker.each("bursts", "pairs", |random| {
        first = !first;
        if first {
            random.exponential(300.0 * US)
        } else {
            random.exponential(3.0 * US)
        }
    });
}

/// Alternates between busy and quiet periods of 100 ms.
fn phases(maker: &mut Maker) {
    for (name, means) in [("phase-100k-2k", [10.0, 500.0]), ("phase-200k-1k", [5.0, 1000.0])] {
        let count = maker.count;
        maker.make("phase", name, |trace, random| {
            let mut busy = true;
            while trace.len() < count {
                trace.begin_phase();
                let mut passed = 0.0;
                while passed < 1e8 && trace.len() < count {
                    let wait = random.exponential(means[usize::from(!busy)] * US);
                    passed += wait;
                    trace.push(wait as u64, 0);
                }
                busy = !busy;
            }
        });
    }
}

/// Returns the families held out while `learned` was tuned: 18 traces.
#[must_use]
pub fn held_out(seed: u64, count: usize) -> Vec<Trace> {
    let mut maker = Maker::new(Role::HeldOut, seed, count);
    mixes::modulated(&mut maker);
    patterns(&mut maker);
    for step in [0.01, 0.05, 0.2] {
        let mut log_mean = (30.0 * US).ln();
        maker.each("logwalk", &format!("logwalk-{step}"), |random| {
            log_mean = (log_mean + step * random.normal()).clamp(US.ln(), (1000.0 * US).ln());
            random.exponential(log_mean.exp())
        });
    }
    for ms in [10.0, 1000.0] {
        maker.each("idle", &format!("idle-{ms}ms"), |random| {
            ms * 1000.0 * US * random.between(0.5, 1.5)
        });
    }
    for (hits, hit, miss) in [(0.9, 4.0, 90.0), (0.7, 4.0, 90.0), (0.5, 8.0, 90.0)] {
        maker.each("cache-hit", &format!("cache-hit-{hits}-{hit}us"), |random| {
            if random.chance(hits) {
                random.log_normal(hit * US, 0.2)
            } else {
                random.log_normal(miss * US, 0.2)
            }
        });
    }
    for length in [300, 3000] {
        let (mut left, mut median, mut sigma) = (0, US, 0.1);
        maker.each("regime", &format!("regime-{length}"), |random| {
            if left == 0 {
                left = 1 + random.below(2 * length);
                median = US * 10f64.powf(random.between(0.0, 3.0));
                sigma = random.between(0.02, 0.3);
            }
            left -= 1;
            random.log_normal(median, sigma)
        });
    }
    mixes::three_sources(&mut maker);
    maker.traces
}

/// Waits that repeat, with one percent of jitter.
fn patterns(maker: &mut Maker) {
    for (name, pattern) in [
        ("pattern-5-100", &[5.0, 100.0][..]),
        ("pattern-8-8-8-200", &[8.0, 8.0, 8.0, 200.0]),
        ("pattern-3-3-60-60", &[3.0, 3.0, 60.0, 60.0]),
        ("pattern-2-30-2-300", &[2.0, 30.0, 2.0, 300.0]),
    ] {
        let mut index = 0;
        maker.each("pattern", name, |random| {
            index = (index + 1) % pattern.len();
            pattern[index] * US * random.between(0.99, 1.01)
        });
    }
}

/// Returns families added after the constants of `learned` were chosen, and before its banks were: 18 traces of 9
/// families.
#[must_use]
pub fn compared(seed: u64, count: usize) -> Vec<Trace> {
    let mut maker = Maker::new(Role::Compared, seed, count);
    for (shape, scale) in [(0.5, 10.0), (0.5, 60.0)] {
        maker.each("weibull", &format!("weibull-{shape}-{scale}us"), |random| {
            scale * US * random.exponential(1.0).powf(1.0 / shape)
        });
    }
    for (stages, mean) in [(4, 15.0), (4, 45.0)] {
        maker.each("erlang", &format!("erlang-{stages}-{mean}us"), |random| {
            (0..stages)
                .map(|_| random.exponential(mean * US / f64::from(stages)))
                .sum()
        });
    }
    for (likely, short, long) in [(0.8, 5.0, 150.0), (0.95, 12.0, 2000.0)] {
        maker.each(
            "hyperexponential",
            &format!("hyperexponential-{likely}"),
            |random| {
                let mean = if random.chance(likely) { short } else { long };
                random.exponential(mean * US)
            },
        );
    }
    mixes::compared(&mut maker);
    maker.traces
}

/// Returns families added after `learned` was finished: 12 traces of 6 families.
#[must_use]
pub fn fresh(seed: u64, count: usize) -> Vec<Trace> {
    let mut maker = Maker::new(Role::Fresh, seed, count);
    mixes::fresh(&mut maker);
    maker.traces
}

/// Returns all families.
#[must_use]
pub fn all(seed: u64, count: usize) -> Vec<Trace> {
    let mut traces = tuned(seed, count);
    traces.extend(held_out(seed, count));
    traces.extend(compared(seed, count));
    traces.extend(fresh(seed, count));
    traces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_promised_and_all_are_different() {
        let sets = [tuned, held_out, compared, fresh];
        let counts = sets.map(|make| make(1, 500).len());
        assert_eq!(counts, [38, 18, 18, 12]);
        let all = all(1, 500);
        let mut names: Vec<&str> = all.iter().map(Trace::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let mut families: Vec<&str> = fresh(1, 10).iter().map(Trace::family).collect();
        families.dedup();
        assert_eq!(families.len(), 6);
        for trace in &all {
            assert_eq!(trace.len(), 500, "{}", trace.name());
        }
    }

    #[test]
    fn seeds_make_traces_and_nothing_else_does() {
        let waits = |seed| -> Vec<Vec<u64>> {
            let all = all(seed, 200);
            all.iter()
                .map(|trace| trace.iter().map(|wait| wait.ns).collect())
                .collect()
        };
        assert_eq!(waits(1), waits(1));
        for (index, (one, two)) in waits(1).iter().zip(&waits(2)).enumerate() {
            assert_ne!(one, two, "trace {index}");
        }
    }

    #[test]
    fn rates_match_the_names() {
        for (name, mean) in [
            ("poisson-20k", 50_000.0),
            ("periodic-100k", 10_000.0),
            ("poisson-500k", 2000.0),
        ] {
            let traces = tuned(9, 50_000);
            let trace = traces.iter().find(|trace| trace.name() == name).unwrap();
            let sum: u64 = trace.iter().map(|wait| wait.ns).sum();
            let got = sum as f64 / 50_000.0;
            assert!((got / mean - 1.0).abs() < 0.03, "{name}: {got}");
        }
    }
}
