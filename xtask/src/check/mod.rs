//! `cargo xtask check` runs every check that is not a test. All steps run, also after one has failed; the summary names them.

mod arrows;
mod cases;
mod checkers;
mod circles;
mod layers;
mod lockfile;
mod msrv;
mod promela;
mod rules;
mod skipped;
mod tidy;
mod tools;
mod words;

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::door;
use crate::glib;
use crate::interrupt::Interrupted;
use crate::shell;
use clap::{Arg, ArgAction, ArgMatches};

/// The name and the function of a step. The text of `Ok` is its result for the summary.
type Step = (&'static str, fn() -> anyhow::Result<String>);

const STEPS: [Step; 20] = [
    ("fmt", fmt),
    ("layers", layers::check),
    ("lockfile", lockfile::check),
    ("circles", circles::check),
    ("tidy", tidy::check),
    ("rules", rules::check),
    ("cases", cases::check),
    ("words", words::check),
    ("deny", tools::deny),
    ("clippy", clippy),
    ("docs", docs),
    ("glib", glib_steps),
    ("msrv", msrv::check),
    ("typos", tools::typos),
    ("machete", tools::machete),
    ("hack", tools::hack),
    ("loom", checkers::loom),
    ("shuttle", checkers::shuttle),
    ("promela", promela::check),
    ("tsan", || door::prove("thread sanitizer")),
];

pub(crate) fn command() -> clap::Command {
    let steps = |name, help| {
        Arg::new(name)
            .long(name)
            .value_name("STEP,STEP,...")
            .value_delimiter(',')
            .action(ArgAction::Append)
            .help(help)
    };
    clap::Command::new("check")
        .about("Format, lints, documentation, layers, licences, spelling, model checkers, sanitizers")
        .long_about(
            "Runs every check that is not a test: format, lints, documentation, layers, licences, spelling, model checkers, \
             sanitizers\n\n\
             About ten minutes on two cores, half of it without the steps from loom on. All steps run, also after one has \
             failed. The soak, the address and realtime sanitizers, memcheck, coverage and mutants are slow; cargo xtask prove runs them. Tools that are missing and quick to build are built into the target directory; a step whose tool cannot \
             be had says so in a line.",
        )
        .after_help(format!("Steps: {}", STEPS.map(|(name, _)| name).join(", ")))
        .arg(steps("only", "Only these steps"))
        .arg(steps("skip", "Without these steps"))
}

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<()> {
    let named = |option| -> Vec<&String> {
        let steps = args.get_many::<String>(option);
        steps.into_iter().flatten().collect()
    };
    let (only, skip) = (named("only"), named("skip"));
    for name in only.iter().chain(&skip) {
        let known = STEPS.map(|(name, _)| name);
        ensure!(
            known.contains(&name.as_str()),
            "there is no step {name:?}; there are {}",
            known.join(", ")
        );
    }
    let mut results = Vec::new();
    for (name, step) in STEPS {
        let is_in = |names: &[&String]| names.iter().any(|other| *other == name);
        if is_in(&skip) || (!only.is_empty() && !is_in(&only)) {
            continue;
        }
        println!("== {name}");
        let began = Instant::now();
        let result = step();
        match result {
            Err(why) if why.is::<Interrupted>() => return Err(why),
            Err(ref why) => eprintln!("{why:#}"),
            Ok(_) => {}
        }
        results.push((name, result, began.elapsed()));
    }
    summarise(&results)
}

fn summarise(results: &[(&str, anyhow::Result<String>, Duration)]) -> anyhow::Result<()> {
    println!();
    let mut failed = Vec::new();
    for (name, result, took) in results {
        let verdict = match result {
            Ok(said) if said.is_empty() => "ok".to_owned(),
            Ok(said) => format!("ok: {said}"),
            Err(_) => {
                failed.push(*name);
                "FAILED".to_owned()
            }
        };
        println!("{name:<8} {:>6.1} s  {verdict}", took.as_secs_f64());
    }
    if !failed.is_empty() {
        bail!(
            "failed: {}; run one again with cargo xtask check --only {}",
            failed.join(", "),
            failed[0]
        );
    }
    Ok(())
}

/// The workspace of its own that shows how to write a backend from outside.
const OUTSIDE: &str = "examples/third-party-backend";

fn fmt() -> anyhow::Result<String> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    // With --all it would check the libraries again, because they are its dependencies.
    shell::run(shell::cargo_in(OUTSIDE).args(["fmt", "--check"]))?;
    shell::run(shell::cargo_in(checkers::WORKSPACE).args(["fmt", "--check"]))?;
    shell::run(shell::cargo_in(glib::WORKSPACE).args(["fmt", "--check"]))?;
    Ok(String::new())
}

fn clippy() -> anyhow::Result<String> {
    let all = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
    ];
    shell::run(shell::cargo().args(all).args(["--", "-D", "warnings"]))?;
    let target = shell::target_dir()?.join("outside");
    shell::run(
        shell::cargo_in(OUTSIDE)
            .args(["clippy", "--quiet", "--all-targets", "--target-dir"])
            .arg(target)
            .args(["--", "-D", "warnings"]),
    )?;
    Ok(String::new())
}

fn docs() -> anyhow::Result<String> {
    let all = [
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--all-features",
        "--document-private-items",
        "--locked",
    ];
    // The encoded form would win over the plain one.
    shell::run(
        shell::cargo()
            .args(all)
            .env_remove("CARGO_ENCODED_RUSTDOCFLAGS")
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    Ok(String::new())
}

/// Lints and documentation of `aio-glib`.
fn glib_steps() -> anyhow::Result<String> {
    if let Some(lacks) = glib::lacks() {
        return Ok(skipped::skipped(lacks));
    }
    let mut clippy = glib::cargo(&["clippy", "--quiet", "--all-targets"])?;
    shell::run(clippy.args(["--", "-D", "warnings"]))?;
    let mut docs = glib::cargo(&["doc", "--quiet", "--no-deps", "--document-private-items"])?;
    docs.env_remove("CARGO_ENCODED_RUSTDOCFLAGS");
    shell::run(docs.env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(String::new())
}
