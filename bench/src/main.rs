//! `cargo xtask bench` measures the aio crates beside hand-written loops and other event loops, in turns.
//!
//! The modules up to `waiting` hold the workloads, and `case` takes turns. `table`, `goals`, `plot`,
//! `compare` and `instructions` print, judge, draw, compare and complete the rows.

mod boards;
mod burst;
mod case;
mod compare;
mod deferred;
mod executors;
mod floor;
mod floor_uring;
mod goals;
mod instructions;
mod load;
mod memory;
mod ours;
mod peers;
mod ping_pong;
mod plot;
mod registering;
mod row;
mod staleness;
mod submitting;
mod table;
mod timers;
mod waiting;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use aio_tools::build;
use aio_tools::cores::Cores;
use aio_tools::interrupt::{Interrupt, Interrupted};
use aio_tools::report::{self, Machine};
use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::case::Case;
use crate::row::Row;

/// Measure beside a hand-written loop and other event loops
///
/// All implementations take turns, round by round. Figures are medians. Ratios are taken within a round, so
/// they depend neither on the speed of the machine nor on its drift.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", version)]
struct Args {
    /// Take about a minute: three rounds instead of nine, and only ours and the floor
    #[arg(long)]
    quick: bool,
    /// Measure only these ids, as in P3,P4
    #[arg(long, value_name = "ID,ID,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios to the floor into this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print the workloads that became slower than in this file by more than the noise; fail if there are any
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Also count instructions, if valgrind is installed: they do not depend on other load of the machine
    #[arg(long)]
    instructions: bool,
    /// Measure nothing: repeat the work of one contestant this often, to have its instructions counted
    #[arg(long, value_name = "TIMES", requires_all = ["workload", "size", "impl"], hide = true)]
    count: Option<u64>,
    #[arg(long, value_name = "WORKLOAD", requires = "count", hide = true)]
    workload: Option<String>,
    #[arg(long, value_name = "N", requires = "count", hide = true)]
    size: Option<u64>,
    #[arg(long, value_name = "NAME", requires = "count", hide = true)]
    r#impl: Option<String>,
}

fn main() -> ExitCode {
    aio_tools::end(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let only = ids(&args.only)?;
    raise_descriptor_limit();
    if let Some(times) = args.count {
        return count_one(args, &only, times);
    }
    build::require_optimized("cargo xtask bench")?;
    let old = args.compare.as_deref().map(readable).transpose()?;
    let interrupt = Interrupt::catch()?;
    let began = Instant::now();
    let machine = Machine::measured(Cores::pick());
    let mut rows = measure(args, &only, &interrupt)?;
    if args.instructions {
        instructions::count(&mut rows, &interrupt)?;
    }
    println!("\n{}; {:.0?}", machine.headline(), began.elapsed());
    table::print(&rows);
    if args.instructions {
        instructions::print(&rows);
    }
    if let Some(file) = &args.json {
        report::write_json(file, machine, &rows)?;
    }
    if let Some(file) = &args.plot {
        plot::draw(file, &rows)?;
    }
    if let Some(old) = old {
        let slower = compare::print(old, &rows)?;
        if slower > 0 {
            bail!("{slower} figures became slower");
        }
    }
    Ok(())
}

/// Checks that a file can be read, before a quarter of an hour of measuring has passed.
fn readable(file: &Path) -> anyhow::Result<&Path> {
    std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(file)
}

/// Returns the requested ids, in capitals.
fn ids(only: &[String]) -> anyhow::Result<Vec<String>> {
    let ids: Vec<String> = only.iter().map(|id| id.trim().to_uppercase()).collect();
    for id in &ids {
        let known = goals::IDS.map(|(id, _)| id);
        ensure!(
            known.contains(&id.as_str()),
            "there is no benchmark {id:?}; there are {}",
            known.join(", ")
        );
    }
    Ok(ids)
}

fn is_wanted(only: &[String], id: &str) -> bool {
    only.is_empty() || only.iter().any(|wanted| wanted == id)
}

/// Returns the workloads of one thread, and those of two.
fn cases(only: &[String]) -> (Vec<Case>, Vec<Case>) {
    let (crossing, home): (Vec<Case>, Vec<Case>) = deferred::cases()
        .into_iter()
        .chain(executors::cases())
        .partition(|case| case.workload.starts_with("cross"));
    let mut pinned: Vec<Case> = waiting::cases();
    pinned.extend(boards::cases());
    pinned.extend(registering::cases());
    pinned.extend(timers::cases());
    pinned.extend(submitting::cases());
    pinned.extend(home);
    let mut crossing: Vec<Case> = crossing.into_iter().chain(ping_pong::ping_pong()).collect();
    pinned.retain(|case| is_wanted(only, case.id));
    crossing.retain(|case| is_wanted(only, case.id));
    (pinned, crossing)
}

/// Measures the requested cases, and prints a line for every figure.
fn measure(args: &Args, only: &[String], interrupt: &Interrupt) -> anyhow::Result<Vec<Row>> {
    let (pinned, crossing) = cases(only);
    let bar = ProgressBar::new((pinned.len() + crossing.len()) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {msg} ({eta} left)",
    )?);
    let mut turns = Turns {
        rounds: if args.quick { 3 } else { 9 },
        alone: args.quick,
        bar,
        rows: Vec::new(),
        skipped: Vec::new(),
    };
    table::print_head();
    let all = sched_getaffinity(None).ok();
    pin_to_one(all.as_ref());
    let measured = turns.take(pinned, interrupt);
    if let Some(all) = all {
        let _ = sched_setaffinity(None, &all);
    }
    measured?;
    turns.take(crossing, interrupt)?;
    turns.bar.finish_and_clear();
    let wanted = |id: &str| is_wanted(only, id);
    for row in memory::rows(&wanted)?
        .into_iter()
        .chain(burst::rows(&wanted)?)
        .chain(staleness::rows(&wanted)?)
    {
        table::print_row(&row);
        turns.rows.push(row);
    }
    for line in turns.skipped {
        println!("left out: {line}");
    }
    Ok(turns.rows)
}

/// The measurement of cases, one after the other.
struct Turns {
    rounds: usize,
    /// Set to measure only ours and the floor.
    alone: bool,
    bar: ProgressBar,
    rows: Vec<Row>,
    skipped: Vec<String>,
}

impl Turns {
    fn take(&mut self, cases: Vec<Case>, interrupt: &Interrupt) -> Result<(), Interrupted> {
        for mut case in cases {
            interrupt.check()?;
            if self.alone {
                case.contestants
                    .retain(|one| one.name.starts_with("aio") || one.name.starts_with("floor"));
            }
            self.bar
                .set_message(format!("{} {} {}", case.id, case.workload, case.n));
            let (id, workload, n) = (case.id, case.workload.clone(), case.n);
            let outcomes = case.measure(self.rounds, &mut self.skipped);
            let named = |name| outcomes.iter().find(|outcome| outcome.name == name);
            let floor = named("floor").or_else(|| named("floor-uring"));
            let floor = floor.map(|floor| floor.ns.clone());
            for outcome in &outcomes {
                let row = Row::measured(id, &workload, n, outcome, floor.as_deref());
                self.bar.suspend(|| table::print_row(&row));
                self.rows.push(row);
            }
            self.bar.inc(1);
        }
        Ok(())
    }
}

/// Runs the work of one contestant `times` times, where callgrind counts.
fn count_one(args: &Args, only: &[String], times: u64) -> anyhow::Result<()> {
    let mut cases = cases(only).0.into_iter();
    let case = cases
        .find(|case| Some(&case.workload) == args.workload.as_ref() && Some(case.n) == args.size)
        .context("there is no such workload")?;
    let mut contestants = case.contestants.into_iter();
    let one = contestants
        .find(|one| Some(one.name) == args.r#impl.as_deref())
        .context("there is no such implementation")?;
    let mut run = (one.make)()?;
    run(times.max(300));
    counted_section(&mut run, times);
    Ok(())
}

#[inline(never)]
fn counted_section(run: &mut case::Run, times: u64) {
    run(std::hint::black_box(times));
}

/// Binds the process to the last core that it may use. The first core serves most interrupts.
fn pin_to_one(all: Option<&CpuSet>) {
    let Some(last) = all.and_then(|all| (0..CpuSet::MAX_CPU).rev().find(|core| all.is_set(*core))) else {
        return;
    };
    aio_tools::cores::pin(last);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_ids_are_named_with_the_known_ones() {
        assert_eq!(ids(&["p3".to_owned(), " P4".to_owned()]).unwrap(), ["P3", "P4"]);
        let why = ids(&["P99".to_owned()]).unwrap_err().to_string();
        assert!(why.contains("P99") && why.contains("P3, P4"), "{why}");
    }
}
