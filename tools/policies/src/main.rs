//! `cargo xtask policies`: the cost of polling policies on the built-in kinds of load or on a recorded one.
//!
//! It replays traces. It measures only one property of this machine, with `--check`: the time that a policy
//! takes to process a wait.

mod args;
mod check;
mod closed;
mod grid;
mod pictures;
mod plot;
mod row;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use aio_replay::{Trace, families};
use aio_tools::interrupt::Interrupt;
use aio_tools::{build, report};
use anyhow::{Context as _, bail};
use clap::Parser as _;

use self::args::Args;
use self::grid::Contender;

fn main() -> ExitCode {
    let args = Args::parse();
    aio_tools::end(build::require_optimized("cargo xtask policies").and_then(|()| run(&args)))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    if args.check {
        return check::run(args, &interrupt);
    }
    if let Some(directory) = &args.pictures {
        return pictures::draw(directory, args.seed.unwrap_or(2), &interrupt);
    }
    if args.closed_loop {
        return closed::run(args, &interrupt);
    }
    let began = Instant::now();
    let traces = if args.trace.is_empty() {
        families::all(args.seed.unwrap_or(2), args.waits as usize)
    } else {
        args.trace.iter().map(read).collect::<anyhow::Result<_>>()?
    };
    let contenders: Vec<Contender> = grid::contenders()
        .into_iter()
        .filter(|contender| {
            args.policy.is_empty() || args.policy.iter().any(|name| name.as_str() == contender.name)
        })
        .collect();
    let rows = grid::run(&traces, &args.wake_cost_ns, &contenders, &interrupt)?;
    println!(
        "{} traces, wake-ups of {} us, {:.1?}",
        traces.len(),
        table::list(&args.wake_cost_ns),
        began.elapsed()
    );
    table::print(&rows);
    if let Some(file) = &args.json {
        report::write_json(file, report::Machine::this(), &rows)?;
    }
    if let Some(file) = &args.plot {
        plot::draw(file, &rows)?;
    }
    Ok(())
}

fn read(file: &PathBuf) -> anyhow::Result<Trace> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    match Trace::parse(&name, &text) {
        Ok(trace) => Ok(trace),
        Err(error) => bail!("{}: {error}", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["policies"], args].concat())
    }

    #[test]
    fn options_are_checked() {
        assert_eq!(parse(&[]).unwrap().wake_cost_ns, [5_000, 10_000, 20_000, 50_000]);
        let some = parse(&[
            "--wake-cost-ns",
            "7000",
            "--policy",
            "learned",
            "--policy",
            "best-fixed",
        ])
        .unwrap();
        assert_eq!((some.wake_cost_ns, some.policy.len()), (vec![7000], 2));
        for wrong in [
            &["--policy", "clairvoyant"][..],
            &["--wake-cost-ns", "0"],
            &["--check", "--policy", "learned"],
            &["--waits", "1"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_is_replayed_and_written_as_rows() {
        let directory = tempfile::tempdir().unwrap();
        let [trace, json, plot] =
            ["waits.txt", "rows.json", "plot.svg"].map(|name| directory.path().join(name));
        std::fs::write(&trace, "# waits\n3000\n900000\n".repeat(500)).unwrap();
        let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
        let args = [
            "--trace",
            &path(&trace),
            "--wake-cost-ns",
            "10000",
            "--json",
            &path(&json),
            "--plot",
            &path(&plot),
        ];
        run(&parse(&args).unwrap()).unwrap();
        let report: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), grid::NAMES.len());
        let never = rows.iter().find(|row| row["policy"] == "never").unwrap();
        assert_eq!(never["trace"], "waits");
        assert_eq!(never["wake_cost_ns"], 10_000);
        assert_eq!(
            (&never["wakeups"], &never["spin_ns"]),
            (&1000.into(), &0.0.into())
        );
        let ratio = never["cost_over_clairvoyant"].as_f64().unwrap();
        assert!((ratio - 20.0 / 13.0).abs() < 1e-9, "{ratio}");
        assert!(never["p99_added_ns"].as_f64().unwrap() > 8000.0);
        assert!(std::fs::read_to_string(plot).unwrap().contains("learned"));
        std::fs::write(&trace, "soon\n").unwrap();
        let error = run(&parse(&["--trace", &path(&trace)]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("line 1 is \"soon\""), "{error}");
    }
}
