//! Measures the aio crates beside hand-written loops and other event loops, in turns; `cargo xtask bench` runs it.
//!
//! It prints a line for every figure, and at the end writes all of them to a file. It judges nothing.

mod case;
mod deferred;
mod floor;
mod memory;
mod ours;
mod peers;
mod registering;
mod timers;
mod waiting;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::case::{Case, Outcome};

/// Measures the aio crates beside hand-written loops and other event loops.
#[derive(Debug, Parser)]
struct Args {
    /// Three rounds instead of nine
    #[arg(long)]
    quick: bool,
    /// Only these, as in P3,P4
    #[arg(long, value_name = "ID,ID,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Where to write the rows
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Only ours and the floor
    #[arg(long)]
    alone: bool,
}

/// A figure: nanoseconds per operation.
#[derive(Debug, Serialize)]
struct Row {
    id: &'static str,
    workload: String,
    r#impl: &'static str,
    n: u64,
    ns: f64,
    min_ns: f64,
    max_ns: f64,
    ratio_to_floor: f64,
    ratio_min: f64,
    ratio_max: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    raise_descriptor_limit();
    let wanted =
        |id: &str| args.only.is_empty() || args.only.iter().any(|only| only.eq_ignore_ascii_case(id));
    let mut pinned: Vec<Case> = Vec::new();
    pinned.extend(waiting::cases());
    pinned.extend(registering::cases());
    pinned.extend(timers::cases());
    let (crossing, home): (Vec<Case>, Vec<Case>) = deferred::cases()
        .into_iter()
        .partition(|case| case.workload.starts_with("cross"));
    pinned.extend(home);
    let mut crossing: Vec<Case> = crossing.into_iter().chain(waiting::ping_pong()).collect();
    pinned.retain(|case| wanted(case.id));
    crossing.retain(|case| wanted(case.id));
    let rounds = if args.quick { 3 } else { 9 };
    let bar = ProgressBar::new((pinned.len() + crossing.len()) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {msg} ({eta} left)",
    )?);
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    println!(
        "{:<4} {:<20} {:>8} {:<14} {:>10} {:>23} {:>9} {:>17}",
        "id", "workload", "n", "impl", "ns", "[min - max]", "to floor", "[min - max]"
    );
    let all = getaffinity();
    pin_to_one(all.as_ref());
    for case in pinned {
        measure(case, &args, rounds, &bar, &mut rows, &mut skipped);
    }
    if let Some(all) = all {
        let _ = sched_setaffinity(None, &all);
    }
    for case in crossing {
        measure(case, &args, rounds, &bar, &mut rows, &mut skipped);
    }
    bar.finish_and_clear();
    if wanted("P12") {
        memory::print();
    }
    for line in skipped {
        println!("left out: {line}");
    }
    if let Some(file) = &args.rows {
        let text = serde_json::to_string(&rows)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn measure(
    mut case: Case,
    args: &Args,
    rounds: usize,
    bar: &ProgressBar,
    rows: &mut Vec<Row>,
    skipped: &mut Vec<String>,
) {
    if args.alone {
        case.contestants.retain(|one| matches!(one.name, "aio" | "floor"));
    }
    bar.set_message(format!("{} {} {}", case.id, case.workload, case.n));
    let (id, workload, n) = (case.id, case.workload.clone(), case.n);
    let outcomes = case.measure(rounds, skipped);
    let floor = outcomes
        .iter()
        .find(|outcome| outcome.name == "floor")
        .map(|floor| floor.ns.clone());
    for outcome in &outcomes {
        let row = row(id, &workload, n, outcome, floor.as_deref());
        bar.suspend(|| print(&row));
        rows.push(row);
    }
    bar.inc(1);
}

fn row(id: &'static str, workload: &str, n: u64, outcome: &Outcome, floor: Option<&[f64]>) -> Row {
    let (min_ns, ns, max_ns) = spread(&outcome.ns);
    let ratios: Vec<f64> = floor
        .unwrap_or(&[])
        .iter()
        .zip(&outcome.ns)
        .map(|(floor, ns)| ns / floor)
        .collect();
    let (ratio_min, ratio_to_floor, ratio_max) = spread(&ratios);
    Row {
        id,
        workload: workload.to_owned(),
        r#impl: outcome.name,
        n,
        ns,
        min_ns,
        max_ns,
        ratio_to_floor,
        ratio_min,
        ratio_max,
    }
}

/// The smallest, the middle and the largest.
fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => (f64::NAN, f64::NAN, f64::NAN),
        len => (sorted[0], sorted[len / 2], sorted[len - 1]),
    }
}

fn print(row: &Row) {
    println!(
        "{:<4} {:<20} {:>8} {:<14} {:>10.1} {:>23} {:>9.2} {:>17}",
        row.id,
        row.workload,
        row.n,
        row.r#impl,
        row.ns,
        format!("[{:.1} - {:.1}]", row.min_ns, row.max_ns),
        row.ratio_to_floor,
        format!("[{:.2} - {:.2}]", row.ratio_min, row.ratio_max),
    );
}

fn getaffinity() -> Option<CpuSet> {
    sched_getaffinity(None).ok()
}

/// Binds to the last core that this process may use: the first one serves most interrupts.
fn pin_to_one(all: Option<&CpuSet>) {
    let Some(last) = all.and_then(|all| (0..CpuSet::MAX_CPU).rev().find(|core| all.is_set(*core))) else {
        return;
    };
    let mut one = CpuSet::new();
    one.set(last);
    let _ = sched_setaffinity(None, &one);
}

fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}
