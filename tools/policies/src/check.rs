//! `--check`: the goals of `learned`, row by row, on three seeds.
//!
//! The first rows cover the 56 traces of the families that were used for its design. The next ones cover
//! families that were added afterwards. The last ones cover conditions without a trace: adversaries, changes,
//! deadlines, sleeps of no length, a ceiling.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aio_pollctl::{Iteration, Policy, PollParams, PollPolicy, WakeCost};
use aio_replay::{self as replay, Role, Trace, WAKE_COSTS_NS, families, geometric_mean, params_for};
use anyhow::bail;
use serde::Serialize;

use crate::args::Args;
use crate::closed;
use crate::grid::{self, Contender, ORIGINAL_MAX};
use crate::row::Row;
use aio_tools::interrupt::Interrupt;
use aio_tools::report;

const SEEDS: u64 = 3;
const POLICY: &str = "learned";

/// A requirement, and the worst result of all seeds.
#[derive(Clone, Debug, Serialize)]
struct Verdict {
    what: String,
    got: f64,
    /// The greatest permitted value; `None` if the value is only printed.
    limit: Option<f64>,
    pass: bool,
}

impl Verdict {
    fn at_most(what: impl Into<String>, got: f64, limit: f64) -> Self {
        Self {
            what: what.into(),
            got,
            limit: Some(limit),
            pass: got <= limit,
        }
    }

    fn shown(what: impl Into<String>, got: f64) -> Self {
        Self {
            what: what.into(),
            got,
            limit: None,
            pass: true,
        }
    }

    fn print(&self) {
        let mark = match (self.limit, self.pass) {
            (None, _) => "    ",
            (Some(_), true) => "PASS",
            (Some(_), false) => "FAIL",
        };
        let limit = self
            .limit
            .map_or_else(String::new, |limit| format!("at most {limit:.3}"));
        println!("{mark}  {:<66} {:>8.3}  {limit}", self.what, self.got);
    }
}

pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    let first = args.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_millis() as u64
    });
    println!(
        "learned, seeds {first} to {}: the worst of the three\n",
        first + SEEDS - 1
    );
    let mut verdicts = Vec::new();
    for seed in first..first + SEEDS {
        let grid = Grid::replay(seed, args, interrupt)?;
        let mut of_seed = grid.verdicts();
        let closed_loops = closed::check(POLICY, seed, interrupt)?;
        of_seed.extend(closed_loops.map(|(what, got, limit)| Verdict::at_most(what, got, limit)));
        join(&mut verdicts, of_seed);
        interrupt.check()?;
    }
    verdicts.extend(situations(first, interrupt)?);
    verdicts.push(Verdict::shown(
        "ns to learn from a wait, the best of some runs",
        learning_ns(),
    ));
    verdicts.iter().for_each(Verdict::print);
    if let Some(file) = &args.json {
        report::write_json(file, report::Machine::this(), &verdicts)?;
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.pass).count();
    if failed > 0 {
        bail!(
            "{failed} of {} are not reached; --seed {first} repeats this",
            verdicts.len()
        );
    }
    Ok(())
}

/// Keeps the worse verdict of each requirement.
fn join(all: &mut Vec<Verdict>, more: Vec<Verdict>) {
    if all.is_empty() {
        *all = more;
        return;
    }
    for (verdict, other) in all.iter_mut().zip(more) {
        if other.got > verdict.got {
            *verdict = other;
        }
    }
}

/// Returns the nominal wake-up cost, with a latency and a break-even time that are these percentages of the
/// right ones.
fn wrong(wake: u64, latency_percent: u64, break_even_percent: u64) -> PollParams {
    let latency = wake * 4 / 5 * latency_percent / 100;
    let break_even = wake * break_even_percent / 100;
    let price = (latency * 100).div_ceil(break_even).max(100);
    let cpu = break_even.saturating_sub(latency * 100 / price);
    params_for(wake)
        .with_wake(WakeCost {
            latency: Duration::from_nanos(latency),
            cpu: Duration::from_nanos(cpu),
            kick: Duration::ZERO,
        })
        .with_cpu_price(u32::try_from(price).unwrap_or(u32::MAX))
}

fn contenders() -> Vec<Contender> {
    let of = |name, params| Contender::new(name, POLICY, params);
    vec![
        Contender::hindsight(),
        Contender::new("qemu-2020", "qemu-2020", |_| PollParams::up_to(ORIGINAL_MAX)),
        of(POLICY, params_for),
        Contender::new("learned-2", "learned-2", params_for),
        of("capped", |wake| {
            let mut params = params_for(wake);
            params.max = ORIGINAL_MAX;
            params
        }),
        of("latency x0.5", |wake| wrong(wake, 50, 100)),
        of("latency x1.5", |wake| wrong(wake, 150, 100)),
        of("break-even x0.5", |wake| wrong(wake, 100, 50)),
        of("break-even x2", |wake| wrong(wake, 100, 200)),
        of("estimated", |wake| {
            let params = params_for(wake);
            params.with_measured_wake(params.wake)
        }),
        of("estimated x2", |wake| {
            let params = wrong(wake, 200, 100);
            params.with_measured_wake(params.wake)
        }),
    ]
}

/// The replays of one seed.
struct Grid {
    rows: Vec<Row>,
    roles: Vec<(String, Role)>,
}

impl Grid {
    fn replay(seed: u64, args: &Args, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let traces = families::all(seed, args.waits as usize);
        let roles = traces.iter().map(|trace| (trace.name().to_owned(), trace.role()));
        Ok(Self {
            roles: roles.collect(),
            rows: grid::run(&traces, &WAKE_COSTS_NS, &contenders(), interrupt)?,
        })
    }

    /// Returns the costs over the optimum on traces of these roles, in the same order for each policy.
    fn of(&self, policy: &str, roles: &[Role]) -> Vec<f64> {
        let has_role = |row: &&Row| {
            let role = self.roles.iter().find(|(name, _)| *name == row.trace);
            role.is_some_and(|(_, role)| roles.contains(role))
        };
        let rows = self.rows.iter().filter(|row| row.policy == policy);
        rows.filter(has_role)
            .map(|row| row.cost_over_clairvoyant)
            .collect()
    }

    fn over(&self, policy: &str, other: &str, roles: &[Role]) -> Vec<f64> {
        let pairs = self.of(policy, roles).into_iter().zip(self.of(other, roles));
        pairs.map(|(one, other)| one / other).collect()
    }

    fn verdicts(&self) -> Vec<Verdict> {
        const MADE_WITH: [Role; 2] = [Role::Tuned, Role::HeldOut];
        let mean_of = |policy, roles: &[Role]| geometric_mean(self.of(policy, roles));
        let mut verdicts = vec![
            Verdict::at_most(
                "families it was tuned on: mean",
                mean_of(POLICY, &[Role::Tuned]),
                1.095,
            ),
            Verdict::at_most("families held out: mean", mean_of(POLICY, &[Role::HeldOut]), 1.14),
        ];
        verdicts.extend(self.everywhere("56 traces", &MADE_WITH));
        verdicts.extend([
            Verdict::at_most(
                "56 traces, poll-max-ns 32768: mean",
                mean_of("capped", &MADE_WITH),
                1.13,
            ),
            Verdict::at_most(
                "56 traces, poll-max-ns 32768: worst",
                most(&self.of("capped", &MADE_WITH)),
                1.65,
            ),
        ]);
        for (name, limit) in [
            ("latency x0.5", 1.13),
            ("latency x1.5", 1.13),
            ("break-even x0.5", 1.20),
            ("break-even x2", 1.20),
            ("estimated", 1.11),
            ("estimated x2", 1.13),
        ] {
            verdicts.push(Verdict::at_most(
                format!("56 traces, {name}: mean"),
                mean_of(name, &MADE_WITH),
                limit,
            ));
        }
        verdicts.extend(self.everywhere("12 traces of 6 fresh families", &[Role::Fresh]));
        let compared = [Role::Compared];
        verdicts.extend([
            Verdict::shown("18 traces of 9 more families: mean", mean_of(POLICY, &compared)),
            Verdict::at_most(
                "18 traces of 9 more families: mean over best fixed",
                geometric_mean(self.over(POLICY, "best-fixed", &compared)),
                1.0,
            ),
            Verdict::at_most(
                "18 traces of 9 more families: worst over qemu-2020",
                most(&self.over(POLICY, "qemu-2020", &compared)),
                1.01,
            ),
            Verdict::shown(
                "learned-2 on the 56 traces: mean",
                mean_of("learned-2", &MADE_WITH),
            ),
            Verdict::shown(
                "learned-2 on the fresh families: mean",
                mean_of("learned-2", &[Role::Fresh]),
            ),
            Verdict::shown(
                "qemu-2020 on the 56 traces: mean",
                mean_of("qemu-2020", &MADE_WITH),
            ),
            Verdict::shown(
                "qemu-2020 on the fresh families: mean",
                mean_of("qemu-2020", &[Role::Fresh]),
            ),
        ]);
        verdicts
    }

    /// Returns the verdicts on the requirements that hold for every set of roles.
    fn everywhere(&self, place: &str, roles: &[Role]) -> [Verdict; 6] {
        let over_best = self.over(POLICY, "best-fixed", roles);
        let over_original = self.over(POLICY, "qemu-2020", roles);
        let costs = self.of(POLICY, roles);
        let row = |what: &str, got, limit| Verdict::at_most(format!("{place}: {what}"), got, limit);
        [
            row("worst", most(&costs), 1.62),
            row(
                "mean over best fixed time in hindsight",
                geometric_mean(over_best.clone()),
                1.00,
            ),
            row("worst over best fixed time in hindsight", most(&over_best), 1.15),
            row("worst over qemu-2020", most(&over_original), 1.01),
            row("mean over qemu-2020", geometric_mean(over_original), 0.75),
            row("mean", geometric_mean(costs), 1.11),
        ]
    }
}

fn most(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}

/// Returns the verdicts on conditions that no trace has.
fn situations(seed: u64, interrupt: &Interrupt) -> anyhow::Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    let adversaries = WAKE_COSTS_NS.into_iter().flat_map(|wake| {
        (0..SEEDS).filter_map(move |more| replay::worst_adversary(POLICY, wake, 200_000, seed + more))
    });
    let worst = adversaries.map(|adversary| adversary.ratio).collect::<Vec<_>>();
    verdicts.push(Verdict::at_most(
        "adaptive adversaries, 200,000 waits: worst",
        most(&worst),
        2.30,
    ));
    let responses = WAKE_COSTS_NS.map(|wake| replay::step_response(POLICY, wake).unwrap_or((9999, 9999)));
    let (busy, idle): (Vec<f64>, Vec<f64>) = responses
        .map(|(busy, idle)| (busy as f64, idle as f64))
        .into_iter()
        .unzip();
    verdicts.push(Verdict::at_most(
        "waits until right after idle turned busy",
        most(&busy),
        8.0,
    ));
    verdicts.push(Verdict::at_most(
        "waits until right after busy turned idle",
        most(&idle),
        8.0,
    ));
    let peers = WAKE_COSTS_NS.map(|wake| replay::sleeping_peer(POLICY, wake).unwrap_or(f64::INFINITY));
    verdicts.push(Verdict::at_most(
        "a peer that sleeps if we do: time for a request over neither asleep",
        most(&peers),
        1.05,
    ));
    interrupt.check()?;
    verdicts.extend(deadlines(seed));
    interrupt.check()?;
    verdicts.extend(false_sleeps(seed));
    interrupt.check()?;
    verdicts.extend(ceilings(seed));
    Ok(verdicts)
}

fn deadlines(seed: u64) -> [Verdict; 3] {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for wake in WAKE_COSTS_NS {
        for timer in [5_000, 15_000, 40_000, 150_000, 1_000_000] {
            for event in [20_000.0, 100_000.0, 1_000_000.0] {
                if let Some((with, without)) = replay::deadlines(POLICY, wake, timer, event, seed) {
                    known.push(with);
                    unknown.push(without);
                }
            }
        }
    }
    let gains: Vec<f64> = known
        .iter()
        .zip(&unknown)
        .map(|(known, unknown)| known / unknown)
        .collect();
    [
        Verdict::shown(
            "timers beside events, known deadlines: mean",
            geometric_mean(known),
        ),
        Verdict::at_most(
            "known over unknown deadlines: mean",
            geometric_mean(gains.clone()),
            1.0,
        ),
        Verdict::at_most("known over unknown deadlines: worst", most(&gains), 1.02),
    ]
}

fn false_sleeps(seed: u64) -> [Verdict; 2] {
    let traces = some_traces(seed);
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for trace in &traces {
        for percent in [5, 20, 50] {
            if let Some((with, without)) = replay::false_sleeps(POLICY, trace, 20_000, percent) {
                known.push(with);
                unknown.push(without);
            }
        }
    }
    let gains = known.iter().zip(&unknown).map(|(known, unknown)| known / unknown);
    [
        Verdict::shown(
            "5, 20, 50 % of sleeps end at once: mean",
            geometric_mean(known.clone()),
        ),
        Verdict::at_most(
            "the same over taking them for sleeps: mean",
            geometric_mean(gains),
            1.0,
        ),
    ]
}

fn ceilings(seed: u64) -> Vec<Verdict> {
    let traces = some_traces(seed);
    let mut verdicts = Vec::new();
    for percent in [5, 20, 50] {
        let outcomes: Vec<replay::Ceiled> = traces
            .iter()
            .filter_map(|trace| replay::ceiling(POLICY, trace, 20_000, percent))
            .collect();
        let over: Vec<f64> = outcomes
            .iter()
            .map(|outcome| outcome.spin_share - f64::from(percent) / 100.0)
            .collect();
        let costs = outcomes.iter().map(|outcome| outcome.ratio);
        verdicts.push(Verdict::at_most(
            format!("poll-cpu-max {percent}: share of polling above it, worst"),
            most(&over),
            0.01,
        ));
        verdicts.push(Verdict::shown(
            format!("poll-cpu-max {percent}: mean cost"),
            geometric_mean(costs),
        ));
    }
    verdicts
}

/// Returns a trace of each tuned family.
fn some_traces(seed: u64) -> Vec<Trace> {
    let mut traces = families::tuned(seed, 50_000);
    traces.retain(|trace| {
        [
            "poisson-100k",
            "periodic-100k",
            "burst-16-10us",
            "pareto-1.2-10us",
            "device-10us-0.8",
            "phase-100k-2k",
        ]
        .contains(&trace.name())
    });
    traces
}

/// Measures the nanoseconds of a budget and an observation, on unpredictable waits.
fn learning_ns() -> f64 {
    const WAITS: u32 = 200_000;
    let mut random = replay::Random::new(7);
    let seen: Vec<Iteration> = (0..4096)
        .map(|_| {
            let elapsed = Duration::from_nanos(random.below(60_000));
            let blocked = random.chance(0.5);
            Iteration::new(elapsed, elapsed / 2, blocked, !blocked)
        })
        .collect();
    let runs = (0..15).filter_map(|_| {
        let mut policy: Box<dyn PollPolicy> = Box::new(Policy::by_name(POLICY, params_for(20_000))?);
        let began = Instant::now();
        for wait in 0..WAITS {
            black_box(policy.budget_until(None));
            policy.observe(black_box(seen[wait as usize % seen.len()]));
        }
        Some(began.elapsed().as_nanos() as f64 / f64::from(WAITS))
    });
    runs.fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_figures_are_reported() {
        for (latency, break_even) in [(50, 100), (150, 100), (100, 50), (100, 200), (200, 100)] {
            for wake in WAKE_COSTS_NS {
                let params = wrong(wake, latency, break_even);
                let got = params.break_even_ns() as f64 / wake as f64 * 100.0;
                assert!(
                    (got - break_even as f64).abs() < 1.0,
                    "{latency} {break_even}: {got}"
                );
                let got = params.wake.latency.as_nanos() as f64 / (wake as f64 * 0.8) * 100.0;
                assert!(
                    (got - latency as f64).abs() < 1.0,
                    "{latency} {break_even}: {got}"
                );
            }
        }
    }

    #[test]
    fn the_worse_seed_counts() {
        let mut all = vec![Verdict::at_most("a", 1.0, 2.0), Verdict::at_most("b", 2.0, 2.0)];
        join(
            &mut all,
            vec![Verdict::at_most("a", 3.0, 2.0), Verdict::at_most("b", 1.0, 2.0)],
        );
        assert_eq!((all[0].got, all[0].pass, all[1].got), (3.0, false, 2.0));
    }
}
