//! The results that `learned` must reach on the built-in families: a short form of
//! `cargo xtask policies --check`.

use std::time::Duration;

use aio_pollctl::{Policy, PollParams};
use aio_replay::{
    BestFixed, Role, Trace, WAKE_COSTS_NS, families, geometric_mean, params_for, replay, sleeping_peer,
    step_response, worst_adversary,
};

/// Enough waits that the first ones, for which the policy has no observations, count for little.
const WAITS: usize = 20_000;
const SEED: u64 = 41;

struct Cell {
    name: String,
    learned: f64,
    original: f64,
    hindsight: f64,
}

fn cells(traces: &[Trace]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for trace in traces {
        let best = BestFixed::of(trace);
        for wake in WAKE_COSTS_NS {
            let ratio = |name, params| {
                let mut policy = Policy::by_name(name, params).expect("a policy of that name");
                replay(trace, wake, &mut policy)
            };
            let learned = ratio("learned", params_for(wake));
            let original = ratio("qemu-2020", PollParams::up_to(Duration::from_nanos(32_768)));
            cells.push(Cell {
                name: format!("{} at {wake} ns", trace.name()),
                hindsight: best.cost(wake) as f64 / learned.optimum_ns as f64,
                learned: learned.ratio(),
                original: original.ratio(),
            });
        }
    }
    cells
}

fn mean(cells: &[Cell], of: fn(&Cell) -> f64) -> f64 {
    geometric_mean(cells.iter().map(of))
}

fn compare_with_hindsight_and_the_original(cells: &[Cell]) {
    let over_hindsight = mean(cells, |cell| cell.learned / cell.hindsight);
    assert!(
        over_hindsight <= 1.0,
        "{over_hindsight} of the best fixed time in hindsight"
    );
    let over_original = mean(cells, |cell| cell.learned / cell.original);
    assert!(over_original <= 0.75, "{over_original} of the original");
    for cell in cells {
        assert!(cell.learned <= 1.62, "{}: {}", cell.name, cell.learned);
        assert!(
            cell.learned <= 1.15 * cell.hindsight,
            "{}: {}",
            cell.name,
            cell.learned
        );
        assert!(
            cell.learned <= 1.01 * cell.original,
            "{}: {}",
            cell.name,
            cell.learned
        );
    }
}

#[test]
fn learned_reaches_its_goals() {
    let mut traces = families::tuned(SEED, WAITS);
    traces.extend(families::held_out(SEED, WAITS));
    assert_eq!(traces.len(), 56);
    let cells = cells(&traces);
    let over_clairvoyant = mean(&cells, |cell| cell.learned);
    assert!(
        over_clairvoyant <= 1.11,
        "{over_clairvoyant} of the clairvoyant optimum"
    );
    compare_with_hindsight_and_the_original(&cells);
}

#[test]
fn learned_holds_on_families_it_was_not_made_for() {
    let traces = families::fresh(SEED, WAITS);
    assert!(traces.iter().all(|trace| trace.role() == Role::Fresh));
    let cells = cells(&traces);
    let over_clairvoyant = mean(&cells, |cell| cell.learned);
    assert!(
        over_clairvoyant <= 1.11,
        "{over_clairvoyant} of the clairvoyant optimum"
    );
    compare_with_hindsight_and_the_original(&cells);
}

#[test]
fn no_adversary_gets_past_the_guard() {
    for name in ["learned", "learned-2"] {
        for wake in WAKE_COSTS_NS {
            let worst = worst_adversary(name, wake, 20_000, SEED).unwrap();
            assert!(worst.ratio <= 2.30, "{name} at {wake} ns: {worst:?}");
            let (up, down) = step_response(name, wake).unwrap();
            assert!(up <= 8 && down <= 8, "{name} at {wake} ns: {up} and {down} waits");
        }
    }
}

#[test]
fn a_peer_that_sleeps_only_because_we_do_is_found_out() {
    for wake in WAKE_COSTS_NS {
        for name in ["learned", "learned-2"] {
            let over = sleeping_peer(name, wake).unwrap();
            assert!(
                over <= 1.05,
                "{name} at {wake} ns: {over} times as long as could be"
            );
        }
        for name in ["never", "ski-rental"] {
            let over = sleeping_peer(name, wake).unwrap();
            assert!(over > 10.0, "{name} finds it by itself at {wake} ns: {over}");
        }
    }
}
