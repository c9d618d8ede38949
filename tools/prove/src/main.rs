//! `cargo xtask prove` runs the long checks, to short or long bounds, and ends with one table.
//!
//! `list` is the table of checks, `at` runs the programs of a check, `memory` makes a long run continue an
//! earlier one. The run fails if a check fails. A check also fails if it does not find a fault that it
//! plants. A missing tool is a row of the table.

mod at;
mod blockd;
mod coverage;
mod fuzz;
mod list;
mod memory;
mod mutants;
mod sanitizers;
mod table;
mod tasks;
mod valgrind;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use aio_tools::interrupt::{Interrupt, Interrupted};
use aio_tools::report::{self, Machine};
use anyhow::{Context as _, bail, ensure};
use clap::Parser;

use at::{At, Outcome};
use list::{CHECKS, Check};
use memory::Memory;
use table::{Row, Verdict};

/// Run the long checks: models, machines, faults, sanitizers, soak, mutants, coverage
///
/// Takes about twenty minutes on two cores, with --long some hours; --long leaves out checks that an earlier
/// run has done for this commit. The output of each check is in the target directory, below `prove`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask prove", bin_name = "cargo xtask prove", version)]
struct Args {
    /// Use the long bounds, and continue an earlier run of the same commit
    #[arg(long)]
    long: bool,
    /// Repeat all checks
    #[arg(long)]
    again: bool,
    /// Run only these checks
    #[arg(long, value_name = "CHECK,CHECK,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Write the table to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run one check to its short bound, as a step of `cargo xtask check`: prints its result, and no table
    #[arg(long, value_name = "CHECK", hide = true, conflicts_with_all = ["long", "again", "only", "json"])]
    step: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    aio_tools::end(match &args.step {
        Some(name) => step(name),
        None => run(&args),
    })
}

fn run(args: &Args) -> anyhow::Result<()> {
    let names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
    for name in &args.only {
        ensure!(
            names.contains(&name.as_str()),
            "there is no check {name:?}; there are {}",
            names.join(", ")
        );
    }
    let chosen = |check: &&Check| args.only.is_empty() || args.only.iter().any(|only| only == check.name);
    let interrupt = Interrupt::catch()?;
    let mut memory = Memory::open(args.long)?;
    let mut rows = Vec::new();
    let mut interrupted = false;
    for check in CHECKS.iter().filter(chosen) {
        if args.long
            && !args.again
            && let Some(row) = memory.recall(check.name)
        {
            println!("{}: done before", check.name);
            rows.push(row);
            continue;
        }
        match one(check, args.long, &interrupt) {
            Ok(row) => {
                println!("{row}");
                memory.keep(&row)?;
                rows.push(row);
            }
            Err(why) if why.is::<Interrupted>() => {
                interrupted = true;
                break;
            }
            Err(why) => return Err(why),
        }
    }
    println!("\n{}", table::markdown(&rows, args.long));
    if let Some(file) = &args.json {
        report::write_json(file, Machine::this(), &rows)?;
    }
    if interrupted {
        return Err(Interrupted.into());
    }
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| row.verdict == Verdict::Failed)
        .map(|row| row.check.as_str())
        .collect();
    if !failed.is_empty() {
        bail!(
            "failed: {}; run one again with cargo xtask prove --only {}",
            failed.join(", "),
            failed[0]
        );
    }
    Ok(())
}

/// Runs a check to its short bound. Its last line of output is the result.
fn step(name: &str) -> anyhow::Result<()> {
    let check = CHECKS.iter().find(|check| check.name == name);
    let check = check.with_context(|| format!("there is no check {name:?}"))?;
    let row = one(check, false, &Interrupt::catch()?)?;
    ensure!(row.verdict != Verdict::Failed, "{}", row.said());
    println!("{}", row.said());
    Ok(())
}

/// Runs a check. An error is an interruption, or means that nothing can be run at all.
fn one(check: &Check, long: bool, interrupt: &Interrupt) -> anyhow::Result<Row> {
    let began = Instant::now();
    let at = At::new(check.name, long, check.limit(long), interrupt)?;
    let result = match check.missing() {
        Some(tool) => Ok(Outcome::skipped(format!("{tool} is not installed"))),
        None => (check.run)(&at),
    };
    at.done();
    let (verdict, found) = match result {
        Err(why) if why.is::<Interrupted>() => return Err(why),
        Err(why) => {
            eprintln!("{}: {why:#}\n{}", check.name, at.last_words());
            (Verdict::Failed, format!("{why:#}"))
        }
        Ok(Outcome::Found(found)) => (Verdict::Good, found),
        Ok(Outcome::Skipped(why)) => (Verdict::Skipped, why),
    };
    Ok(Row {
        check: check.name.to_owned(),
        bound: if long { check.long } else { check.quick }.to_owned(),
        found,
        seconds: began.elapsed().as_secs_f64(),
        verdict,
    })
}
