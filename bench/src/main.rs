//! Measures the aio crates beside hand-written loops and other event loops, in turns; `cargo xtask bench` runs it.
//!
//! It prints a line for every figure, and at the end writes all of them to a file. It judges nothing.

mod boards;
mod case;
mod deferred;
mod floor;
mod memory;
mod ours;
mod peers;
mod ping_pong;
mod registering;
mod staleness;
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
    /// Measure nothing; do the work of one contestant so often, to have its instructions counted
    #[arg(long, value_name = "TIMES", requires_all = ["workload", "size", "impl"])]
    count: Option<u64>,
    #[arg(long, value_name = "WORKLOAD", requires = "count")]
    workload: Option<String>,
    #[arg(long, value_name = "N", requires = "count")]
    size: Option<u64>,
    #[arg(long, value_name = "NAME", requires = "count")]
    r#impl: Option<String>,
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
    /// A figure that is no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
}

impl Row {
    /// A figure that is no time, such as bytes.
    fn counted(id: &'static str, workload: &str, n: u64, count: f64, unit: &'static str) -> Self {
        Self {
            id,
            workload: workload.to_owned(),
            r#impl: "aio",
            n,
            ns: 0.0,
            min_ns: 0.0,
            max_ns: 0.0,
            ratio_to_floor: f64::NAN,
            ratio_min: f64::NAN,
            ratio_max: f64::NAN,
            count: Some(count),
            unit: Some(unit),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    raise_descriptor_limit();
    let wanted =
        |id: &str| args.only.is_empty() || args.only.iter().any(|only| only.eq_ignore_ascii_case(id));
    let mut pinned: Vec<Case> = Vec::new();
    pinned.extend(waiting::cases());
    pinned.extend(boards::cases());
    pinned.extend(registering::cases());
    pinned.extend(timers::cases());
    let (crossing, home): (Vec<Case>, Vec<Case>) = deferred::cases()
        .into_iter()
        .partition(|case| case.workload.starts_with("cross"));
    pinned.extend(home);
    let mut crossing: Vec<Case> = crossing.into_iter().chain(ping_pong::ping_pong()).collect();
    pinned.retain(|case| wanted(case.id));
    if let Some(times) = args.count {
        return count_one(pinned, &args, times);
    }
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
    let counted = memory::rows(&wanted)?
        .into_iter()
        .chain(staleness::rows(&wanted)?);
    for row in counted {
        print(&row);
        rows.push(row);
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

/// Does the work of one contestant `times` times, where callgrind counts.
fn count_one(cases: Vec<Case>, args: &Args, times: u64) -> anyhow::Result<()> {
    let mut cases = cases.into_iter();
    let case = cases
        .find(|case| Some(&case.workload) == args.workload.as_ref() && Some(case.n) == args.size)
        .context("there is no such workload")?;
    let mut contestants = case.contestants.into_iter();
    let one = contestants
        .find(|one| Some(one.name) == args.r#impl.as_deref())
        .context("nobody of that name takes part")?;
    let mut run = (one.make)()?;
    run(times.max(300));
    counted_section(&mut run, times);
    Ok(())
}

#[inline(never)]
fn counted_section(run: &mut case::Run, times: u64) {
    run(std::hint::black_box(times));
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
        count: None,
        unit: None,
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
    if let (Some(count), Some(unit)) = (row.count, row.unit) {
        println!(
            "{:<4} {:<20} {:>8} {:<14} {count:>10.1} {unit}",
            row.id, row.workload, row.n, row.r#impl
        );
        return;
    }
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
