//! `--closed-loop`: policies with a client that waits for its answers and pays for its kicks (rule A11).

use std::time::Duration;

use aio_pollctl::WakeCost;
use aio_replay::{ClosedLoop, Deciding, WAKE_COSTS_NS, geometric_mean};
use aio_tools::interrupt::Interrupt;
use aio_tools::report;
use serde::Serialize;

use crate::args::Args;
use crate::grid::{NAMES, contenders};

const DEPTHS: [usize; 3] = [1, 4, 32];
const THINKS_NS: [u64; 8] = [0, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000, 200_000];
const SPREADS: [f64; 2] = [0.1, 0.5];
const KICKS_NS: [u64; 2] = [0, 3_000];
const REQUESTS: u64 = 20_000;
/// The least cost of a request, with the optimum, for a cell to count. With less the loop hardly ever waits,
/// so the cell is no evidence about waiting.
const LEAST_COST_NS: f64 = 100.0;
/// The name of the best constant polling time.
const BEST_FIXED: &str = "best-fixed";

/// The result of one policy in one cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    depth: usize,
    think_us: f64,
    think_spread: f64,
    client: &'static str,
    wake_cost_ns: u64,
    kick_ns: u64,
    policy: &'static str,
    pub(crate) cost_over_clairvoyant: f64,
    requests_per_second: f64,
    kicks_per_request: f64,
}

pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    let rows = rows(args.seed.unwrap_or(2), &args.wake_cost_ns, interrupt)?;
    print(&rows, &args.policy);
    print_p14(args.seed.unwrap_or(2), interrupt)?;
    if let Some(file) = &args.json {
        report::write_json(file, report::Machine::this(), &rows)?;
    }
    Ok(())
}

/// Returns the geometric mean over all cells and the worst cell of `policy`, relative to [the
/// clairvoyant](Deciding::Clairvoyant).
fn judge(rows: &[Row], policy: &str) -> (f64, f64) {
    let of = || {
        rows.iter()
            .filter(|row| row.policy == policy)
            .map(|row| row.cost_over_clairvoyant)
    };
    (geometric_mean(of()), of().fold(0.0, f64::max))
}

/// Returns all cells with these costs of a sleep, each with all policies.
fn rows(seed: u64, wake_costs_ns: &[u64], interrupt: &Interrupt) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for wake_cost_ns in wake_costs_ns {
        for what in cells(*wake_cost_ns) {
            interrupt.check()?;
            add(&mut rows, &what, *wake_cost_ns, seed);
        }
    }
    Ok(rows)
}

fn cells(wake_cost_ns: u64) -> Vec<ClosedLoop> {
    let mut cells = Vec::new();
    for depth in DEPTHS {
        for think_ns in THINKS_NS {
            for think_spread in SPREADS {
                for kick_ns in KICKS_NS {
                    for client_sleeps in [false, true] {
                        let wake = WakeCost::of_total(Duration::from_nanos(wake_cost_ns));
                        cells.push(ClosedLoop {
                            depth,
                            think_ns,
                            think_spread,
                            client_sleeps,
                            wake: wake.with_kick(Duration::from_nanos(kick_ns)),
                            client_wake_ns: wake_cost_ns * 4 / 5,
                            ..ClosedLoop::default()
                        });
                    }
                }
            }
        }
    }
    cells
}

fn add(rows: &mut Vec<Row>, what: &ClosedLoop, wake_cost_ns: u64, seed: u64) {
    let Some(best) = what.run(Deciding::Clairvoyant, REQUESTS, seed) else {
        return;
    };
    if best.wait_cost_ns() < LEAST_COST_NS {
        return;
    }
    let row = |policy, cost: f64, requests_per_second, kicks_per_request| Row {
        depth: what.depth,
        think_us: what.think_ns as f64 / 1e3,
        think_spread: what.think_spread,
        client: if what.client_sleeps { "event" } else { "spin" },
        wake_cost_ns,
        kick_ns: what.wake.kick.as_nanos() as u64,
        policy,
        cost_over_clairvoyant: cost / best.wait_cost_ns(),
        requests_per_second,
        kicks_per_request,
    };
    for contender in contenders() {
        if let Some(mut policy) = contender.policy(wake_cost_ns, what.wake.kick) {
            let outcome = what.run_policy(&mut policy, REQUESTS, seed);
            let kicks = outcome.kicks as f64 / outcome.requests as f64;
            rows.push(row(
                contender.name,
                outcome.wait_cost_ns(),
                outcome.throughput(),
                kicks,
            ));
        }
    }
    let break_even_ns = what.params().break_even_ns();
    let times: Vec<u64> = (0..=32)
        .map(|eighths| break_even_ns * eighths / 8)
        .chain([u64::MAX])
        .collect();
    rows.push(row(
        BEST_FIXED,
        what.best_fixed(&times, REQUESTS, seed),
        f64::NAN,
        f64::NAN,
    ));
}

fn print(rows: &[Row], wanted: &[String]) {
    let mut names = Vec::from(NAMES);
    names.retain(|name| wanted.is_empty() || wanted.iter().any(|one| one == name));
    names.sort_by(|one, other| judge(rows, one).0.total_cmp(&judge(rows, other).0));
    let cells = rows.iter().filter(|row| row.policy == BEST_FIXED).count();
    println!(
        "{cells} closed loops: depths {DEPTHS:?}, think times {THINKS_NS:?} ns, kicks of {KICKS_NS:?} ns, spinning and sleeping clients\n\
         The cost of waiting (polling, sleeps, kicks) over one that knows the moment of the next request:\n"
    );
    println!(
        "{:<18} {:>8} {:>8} {:>10}   the worst cell",
        "policy", "mean", "worst", "kicks"
    );
    for name in names {
        let (mean, worst) = judge(rows, name);
        let of = rows.iter().filter(|row| row.policy == name);
        let kicks =
            of.clone().map(|row| row.kicks_per_request).sum::<f64>() / of.clone().count().max(1) as f64;
        let cell = of.max_by(|one, other| one.cost_over_clairvoyant.total_cmp(&other.cost_over_clairvoyant));
        let cell = cell.map_or_else(String::new, |row| {
            format!(
                "depth {}, {} us +-{:.0} %, {} client, sleeps of {} us, kicks of {} us",
                row.depth,
                row.think_us,
                row.think_spread * 100.0,
                row.client,
                row.wake_cost_ns / 1000,
                row.kick_ns / 1000
            )
        });
        let kicks = if kicks.is_nan() {
            "-".to_owned()
        } else {
            format!("{kicks:.2}")
        };
        println!("{name:<18} {mean:>8.3} {worst:>8.2} {kicks:>10}   {cell}");
    }
}

/// The goals of `learned`: the mean, and the worst cell.
const GOALS: (f64, f64) = (1.10, 1.6);

/// Returns the results of `policy`, each with its goal.
pub(crate) fn check(
    policy: &'static str,
    seed: u64,
    interrupt: &Interrupt,
) -> anyhow::Result<[(&'static str, f64, f64); 4]> {
    let (mean, worst) = judge(&rows(seed, &WAKE_COSTS_NS, interrupt)?, policy);
    let (p14_mean, p14_worst, _) = judge_p14(policy, seed, interrupt)?;
    Ok([
        ("closed loops: mean over the clairvoyant", mean, GOALS.0),
        ("closed loops: the worst over the clairvoyant", worst, GOALS.1),
        (
            "a request, over the better of off and always: mean",
            p14_mean,
            P14_GOALS.0,
        ),
        (
            "a request, over the better of off and always: worst",
            p14_worst,
            P14_GOALS.1,
        ),
    ])
}

/// The highest permitted cost of a request in a loop with `learned`, relative to the better of polling off
/// and always (P14): the mean, and the worst cell. The first sleeps, from which `learned` adapts, count.
const P14_GOALS: (f64, f64) = (1.02, 1.20);

const P14_REQUESTS: u64 = 100_000;
/// Latency, processor time and kick of a sleep in microseconds, and the additional time of a wake-up while
/// both sides sleep.
const MACHINES_US: [(f64, f64, f64, f64); 3] = [
    (6.5, 3.5, 2.7, 12.0),
    (12.5, 13.5, 6.0, 12.0),
    (4.0, 1.5, 1.0, 4.0),
];
const P14_THINKS_NS: [u64; 5] = [0, 1_000, 2_500, 5_000, 10_000];

/// Returns the machines with clients for [`P14_GOALS`]. The clients kick after a batch. Half of the clients
/// that sleep spin for a while before. On half of the machines a wake-up takes longer while both sides sleep.
fn p14_cells() -> Vec<ClosedLoop> {
    let ns = |us: f64| (us * 1e3) as u64;
    let mut cells = Vec::new();
    for (latency_us, cpu_us, kick_us, deeper_us) in MACHINES_US {
        let [latency, cpu, kick] = [latency_us, cpu_us, kick_us].map(|us| Duration::from_nanos(ns(us)));
        for depth in DEPTHS {
            for think_ns in P14_THINKS_NS {
                for (client_sleeps, client_stays_ns) in [(false, 0), (true, 0), (true, 600)] {
                    for both_asleep_ns in [0, ns(deeper_us)] {
                        cells.push(ClosedLoop {
                            depth,
                            think_ns: 500 + think_ns,
                            client_sleeps,
                            client_stays_ns,
                            both_asleep_ns,
                            service_ns: 250,
                            idle_call_ns: 400,
                            is_batched: true,
                            wake: WakeCost { latency, cpu, kick },
                            call_ns: ns(kick_us),
                            client_wake_ns: ns(latency_us),
                            ..ClosedLoop::default()
                        });
                    }
                }
            }
        }
    }
    cells
}

/// Returns the cost of a request with adaptive polling, relative to the better of off and always: the mean,
/// the worst cell, and the description of that cell.
fn judge_p14(policy: &'static str, seed: u64, interrupt: &Interrupt) -> anyhow::Result<(f64, f64, String)> {
    let mut ratios = Vec::new();
    let mut worst = (0.0, String::new());
    for what in p14_cells() {
        interrupt.check()?;
        let Some(ratio) = over_the_better(&what, policy, seed) else {
            continue;
        };
        ratios.push(ratio);
        if ratio > worst.0 {
            worst = (ratio, describe(&what));
        }
    }
    Ok((geometric_mean(ratios), worst.0, worst.1))
}

/// Prints the results of each policy that adapts.
fn print_p14(seed: u64, interrupt: &Interrupt) -> anyhow::Result<()> {
    println!(
        "\n{} loops with batches, the loop as aio-context has it, sleeps of {MACHINES_US:?} us (latency, processor time, kick, more while both sleep):\n\
         what a request costs (processor time, latency, kicks) over the better of polling off and always:\n",
        p14_cells().len()
    );
    println!("{:<18} {:>8} {:>8}   the worst cell", "policy", "mean", "worst");
    for policy in [
        "learned",
        "learned-2",
        "ski-rental",
        "qemu-10",
        "qemu-2020",
        "kvm",
        "ewma",
    ] {
        let (mean, worst, cell) = judge_p14(policy, seed, interrupt)?;
        println!("{policy:<18} {mean:>8.3} {worst:>8.2}   {cell}");
    }
    Ok(())
}

/// Returns the cost with `policy` relative to the better of off and always; `None` if there is no such
/// policy.
fn over_the_better(what: &ClosedLoop, policy: &'static str, seed: u64) -> Option<f64> {
    let cost = |deciding| what.run(deciding, P14_REQUESTS, seed).map(|run| run.cost_ns());
    let off = cost(Deciding::Loop("never"))?;
    let always = cost(Deciding::Policy("always"))?;
    Some(cost(Deciding::Loop(policy))? / off.min(always))
}

fn describe(what: &ClosedLoop) -> String {
    let client = match (what.client_sleeps, what.client_stays_ns) {
        (false, _) => "spins",
        (true, 0) => "sleeps at once",
        (true, _) => "looks before it sleeps",
    };
    let micros = |ns: u64| ns as f64 / 1e3;
    format!(
        "depth {}, {} us, client {client}, sleeps of {:.1} us and {} us more while both sleep",
        what.depth,
        micros(what.think_ns),
        micros(what.params().break_even_ns()),
        micros(what.both_asleep_ns)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a11_each_policy_is_compared_in_each_cell_that_waits() {
        let interrupt = Interrupt::catch().unwrap();
        let mut rows = Vec::new();
        for what in cells(10_000)
            .into_iter()
            .filter(|what| what.depth == 1 && what.think_ns == 5_000)
        {
            interrupt.check().unwrap();
            add(&mut rows, &what, 10_000, 1);
        }
        assert_eq!(rows.len(), 8 * NAMES.len());
        let (mean, worst) = judge(&rows, "always");
        assert!((0.9..1.2).contains(&mean) && worst >= mean, "{mean} {worst}");
        assert!(judge(&rows, "never").0 > 1.3);
    }

    #[test]
    fn a11_a_loop_that_learns_finds_the_cheaper_side_beside_a_client_that_sleeps() {
        // The requests of a batch arrive while the server sleeps, and its kick at the end. So the loop
        // measures a long wait.
        let batch = |what: &ClosedLoop| what.depth == 32 && what.think_ns == 10_500 && what.client_sleeps;
        // Each wake-up takes longer because the other side sleeps. So the loop measures a sleep that is
        // cheaper than polling.
        let deep = |what: &ClosedLoop| what.depth == 1 && what.think_ns == 10_500 && what.both_asleep_ns > 0;
        for is_meant in [batch, deep] {
            let cells: Vec<ClosedLoop> = p14_cells().into_iter().filter(&is_meant).collect();
            assert!(!cells.is_empty());
            for what in cells {
                let ratio = over_the_better(&what, "learned", 5).unwrap();
                // The first sleeps, from which the policy adapts, are among these requests.
                assert!(ratio <= P14_GOALS.1, "{ratio}: {}", describe(&what));
            }
        }
        assert!(over_the_better(&p14_cells()[0], "unknown", 5).is_none());
    }
}
