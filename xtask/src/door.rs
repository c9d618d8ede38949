//! The tasks that are programs of their own. Cargo builds each with optimization, whatever the profile of this program, and this
//! process becomes the program, with its arguments, its handling of Ctrl-C and its exit status.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process;

use aio_tools::shell;
use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command};

/// A task, the package with its program, and a line about it.
struct Door {
    task: &'static str,
    package: &'static str,
    about: &'static str,
}

const DOORS: [Door; 5] = [
    Door {
        task: "demo",
        package: "aio-demo",
        about: "Serve disks with and without idle queues, and compare: requests per second, latency, CPU",
    },
    Door {
        task: "bench",
        package: "aio-bench",
        about: "Measure beside a hand-written loop and other event loops",
    },
    Door {
        task: "policies",
        package: "aio-policies",
        about: "Replay polling policies on traces of waits",
    },
    Door {
        task: "prove",
        package: "aio-prove",
        about: "Long checks: models, state machine, faults, sanitizers, soak, mutants, coverage",
    },
    Door {
        task: "soak",
        package: "aio-soak",
        about: "A long mixed run: memory, descriptors and speed stay constant",
    },
];

pub(crate) fn commands() -> impl Iterator<Item = Command> {
    DOORS.iter().map(|door| {
        Command::new(door.task)
            .about(door.about)
            // The program has a help of its own, with all its options.
            .disable_help_flag(true)
            .arg(
                Arg::new("args")
                    .num_args(0..)
                    .trailing_var_arg(true)
                    .allow_hyphen_values(true)
                    .value_parser(clap::value_parser!(OsString)),
            )
    })
}

/// Becomes the program of a task.
pub(crate) fn open(task: &str, args: &ArgMatches) -> anyhow::Result<()> {
    let door = DOORS.iter().find(|door| door.task == task);
    let door = door.with_context(|| format!("there is no task {task:?}"))?;
    let args = args.get_many::<OsString>("args");
    let mut cargo = release(door.package, args.into_iter().flatten());
    let failed = cargo.exec();
    Err(failed).with_context(|| format!("cannot start {}", shell::line(&cargo)))
}

/// Cargo, so that it builds a package's program with optimization and runs it in the directory where this one was started.
fn release<'a>(package: &str, args: impl Iterator<Item = impl AsRef<OsStr> + 'a>) -> process::Command {
    let mut cargo = shell::cargo_here();
    cargo.args([
        "run",
        "--release",
        "--locked",
        "--package",
        package,
        "--manifest-path",
    ]);
    cargo.arg(shell::root().join("Cargo.toml"));
    // On a terminal cargo shows how far it is.
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    cargo.arg("--").args(args);
    cargo
}

/// Runs a check of `cargo xtask prove` to its short bound, as a step of `cargo xtask check`; the last line is the result.
pub(crate) fn prove(check: &str) -> anyhow::Result<String> {
    let mut cargo = release("aio-prove", ["--step", check].iter());
    cargo.stderr(process::Stdio::inherit());
    let output = cargo.output().context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(output.status.success(), "{check} failed: {}", output.status);
    Ok(said.trim().lines().next_back().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_arguments_reach_the_program() {
        let given = ["demo", "--help", "--json", "a b", "--", "-x", "--version"];
        let matches = crate::tasks()
            .try_get_matches_from([&["xtask"], &given[..]].concat())
            .unwrap();
        let (task, args) = matches.subcommand().unwrap();
        let args: Vec<&OsString> = args.get_many("args").unwrap().collect();
        assert_eq!(
            (task, args),
            (
                "demo",
                given[1..]
                    .iter()
                    .map(OsString::from)
                    .collect::<Vec<_>>()
                    .iter()
                    .collect()
            )
        );
    }

    #[test]
    fn programs_are_built_with_optimization() {
        for door in &DOORS {
            let line = shell::line(&release(door.package, ["--quick"].iter()));
            assert!(
                line.contains(&format!("run --release --locked --package {}", door.package)),
                "{line}"
            );
            assert!(line.ends_with("-- --quick"), "{line}");
        }
    }
}
