//! `cargo xtask check` runs every check that is not a test. All steps run, even after one has failed; the
//! summary names the failed ones.

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

use anyhow::{Context as _, bail, ensure};

use crate::door;
use crate::glib;
use crate::interrupt::Interrupted;
use crate::shell;
use clap::{Arg, ArgAction, ArgMatches};

/// One check. The text of `Ok` is its result for the summary.
struct Step {
    name: &'static str,
    when: When,
    /// Typical seconds on two cores: with a warm build for [`When::Fast`], with nothing built before for the
    /// others.
    seconds: u32,
    run: fn() -> anyhow::Result<String>,
}

/// The commands that run a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// With `--fast`, and without options.
    Fast,
    /// Without options.
    Usual,
    /// Only if `--only` names it, as in `cargo xtask prove`.
    Named,
}

const fn step(name: &'static str, when: When, seconds: u32, run: fn() -> anyhow::Result<String>) -> Step {
    Step {
        name,
        when,
        seconds,
        run,
    }
}

const STEPS: &[Step] = &[
    step("fmt", When::Fast, 2, fmt),
    step("layers", When::Fast, 1, layers::check),
    step("lockfile", When::Fast, 1, lockfile::check),
    step("circles", When::Fast, 1, circles::check),
    step("tidy", When::Fast, 1, tidy::check),
    step("rules", When::Fast, 1, rules::check),
    step("cases", When::Fast, 1, cases::check),
    step("words", When::Fast, 2, words::check),
    step("links", When::Fast, 1, door::links),
    step("package", When::Fast, 5, || {
        door::packaging(&["package", "--lint"])
    }),
    step("deps", When::Usual, 10, || door::packaging(&["deps"])),
    step("msrv", When::Usual, 1, msrv::check),
    step("clippy", When::Fast, 30, clippy),
    step("docs", When::Usual, 25, docs),
    step("glib", When::Usual, 40, glib_steps),
    step("loom", When::Usual, 110, checkers::loom),
    step("promela", When::Usual, 20, promela::check),
    step("users", When::Named, 100, || {
        door::packaging(&["package", "--users"])
    }),
    step("hack", When::Named, 50, tools::hack),
    step("deny", When::Named, 80, tools::deny),
    step("typos", When::Named, 80, tools::typos),
    step("tsan", When::Named, 100, || door::prove("thread sanitizer")),
    step("machete", When::Named, 30, tools::machete),
    step("shuttle", When::Named, 80, checkers::shuttle),
];

fn names(when: &[When]) -> String {
    let steps = STEPS.iter().filter(|step| when.contains(&step.when));
    steps.map(|step| step.name).collect::<Vec<_>>().join(", ")
}

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
        .about("Format, lints, documentation, layers, packages, model checkers")
        .long_about(
            "Runs every check that is not a test: format, lints, documentation, layers, packages, model checkers\n\n\
             About ten minutes on two cores when nothing is built. All steps run, also after one has failed. cargo xtask prove \
             runs what is too slow for every change. Tools that are missing and quick to build are built into the target directory; \
             a step whose tool cannot be had says so in a line.",
        )
        .after_help(format!(
            "Steps, in this order: {}\nWith --fast: {}\nOnly when named, or by cargo xtask prove: {}",
            names(&[When::Fast, When::Usual]),
            names(&[When::Fast]),
            names(&[When::Named]),
        ))
        .arg(
            Arg::new("fast")
                .long("fast")
                .action(ArgAction::SetTrue)
                .conflicts_with("only")
                .help("Only the steps that take less than a minute together when everything is built; names the others"),
        )
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
        ensure!(
            STEPS.iter().any(|step| step.name == name.as_str()),
            "there is no step {name:?}; there are {}",
            names(&[When::Fast, When::Usual, When::Named])
        );
    }
    let is_fast = args.get_flag("fast");
    let runs = |step: &Step| {
        let is_in = |names: &[&String]| names.iter().any(|name| *name == step.name);
        let is_wanted = match step.when {
            _ if !only.is_empty() => is_in(&only),
            When::Fast => true,
            When::Usual => !is_fast,
            When::Named => false,
        };
        is_wanted && !is_in(&skip)
    };
    let mut results = Vec::new();
    for step in STEPS.iter().filter(|step| runs(step)) {
        println!("== {}", step.name);
        let began = Instant::now();
        let result = (step.run)();
        match result {
            Err(why) if why.is::<Interrupted>() => return Err(why),
            Err(ref why) => eprintln!("{why:#}"),
            Ok(_) => {}
        }
        results.push((step.name, result, began.elapsed()));
    }
    let summary = summarise(&results);
    if is_fast {
        println!("not run with --fast:");
        for step in STEPS.iter().filter(|step| step.when == When::Usual) {
            println!("{:<8} about {:>3} s", step.name, step.seconds);
        }
    }
    summary
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

/// The separate workspace that shows how to write a backend from outside.
const OUTSIDE: &str = "examples/third-party-backend";

fn fmt() -> anyhow::Result<String> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"])).context("cargo fmt --all mends it")?;
    // With --all it would check the libraries again, because they are dependencies of these workspaces.
    for workspace in [OUTSIDE, checkers::WORKSPACE, glib::WORKSPACE] {
        shell::run(shell::cargo_in(workspace).args(["fmt", "--check"]))
            .with_context(|| format!("cargo fmt, in {workspace}, mends it"))?;
    }
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
    // The encoded form would override the plain one.
    shell::run(
        shell::cargo()
            .args(all)
            .env_remove("CARGO_ENCODED_RUSTDOCFLAGS")
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    Ok(String::new())
}

/// Checks lints and documentation of `aio-glib`.
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
