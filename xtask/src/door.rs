//! The tasks that are programs of their own. Cargo builds those that measure with optimization, whichever
//! profile this program has. Then this process becomes the program, with its arguments, its handling of
//! Ctrl-C and its exit status.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process;

use aio_tools::shell;
use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command};

/// A task, the package with its program, and its description.
struct Door {
    task: &'static str,
    package: &'static str,
    about: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A program with one task, built with optimization.
    Measuring,
    /// A program with several tasks, which gets the name of the task as its first argument. It is built with
    /// the profile of this program, because its time does not matter.
    Named,
}

const PACKAGING: &str = "aio-package";
const DOCS: &str = "aio-docs";

const DOORS: [Door; 9] = [
    Door {
        task: "demo",
        package: "aio-demo",
        about: "Serve disks with and without idle queues, and compare: requests per second, latency, CPU",
        kind: Kind::Measuring,
    },
    Door {
        task: "bench",
        package: "aio-bench",
        about: "Measure beside a hand-written loop and other event loops",
        kind: Kind::Measuring,
    },
    Door {
        task: "policies",
        package: "aio-policies",
        about: "Replay polling policies on traces of waits",
        kind: Kind::Measuring,
    },
    Door {
        task: "package",
        package: PACKAGING,
        about: "Package every library as it would be published; with --check, test the packages outside the workspace",
        kind: Kind::Named,
    },
    Door {
        task: "deps",
        package: PACKAGING,
        about: "Count the crates that each library depends on, and the lines of unsafe code",
        kind: Kind::Named,
    },
    Door {
        task: "docs",
        package: DOCS,
        about: "Build the book and the API documentation, and check all links; with --open, open them in a browser",
        kind: Kind::Named,
    },
    Door {
        task: "guest",
        package: "aio-guest",
        about: "Boot Linux guests under QEMU on disks of blockd, and judge what they see; says what to install",
        kind: Kind::Measuring,
    },
    Door {
        task: "prove",
        package: "aio-prove",
        about: "Long checks: models, state machine, faults, sanitizers, soak, mutants, coverage",
        kind: Kind::Measuring,
    },
    Door {
        task: "soak",
        package: "aio-soak",
        about: "A long mixed run: memory, descriptors and speed stay constant",
        kind: Kind::Measuring,
    },
];

pub(crate) fn commands() -> impl Iterator<Item = Command> {
    DOORS.iter().map(|door| {
        Command::new(door.task)
            .about(door.about)
            // The program has its own help, with all its options.
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

/// Replaces this process by the program of a task.
pub(crate) fn open(task: &str, args: &ArgMatches) -> anyhow::Result<()> {
    let door = DOORS.iter().find(|door| door.task == task);
    let door = door.with_context(|| format!("there is no task {task:?}"))?;
    let args = args.get_many::<OsString>("args").into_iter().flatten();
    let mut cargo = door.cargo(args);
    let failed = cargo.exec();
    Err(failed).with_context(|| format!("cannot start {}", shell::line(&cargo)))
}

impl Door {
    fn cargo<'a>(&self, args: impl Iterator<Item = impl AsRef<OsStr> + 'a>) -> process::Command {
        let name = (self.kind == Kind::Named).then_some(OsStr::new(self.task));
        let args: Vec<_> = args.map(|arg| arg.as_ref().to_owned()).collect();
        let args = name.into_iter().chain(args.iter().map(OsString::as_os_str));
        run(self.package, self.kind == Kind::Measuring, args)
    }
}

/// Returns a cargo command that builds a package's program and runs it in the directory where this program
/// was started.
fn run<'a>(
    package: &str,
    optimized: bool,
    args: impl Iterator<Item = impl AsRef<OsStr> + 'a>,
) -> process::Command {
    let mut cargo = shell::cargo_here();
    cargo.arg("run");
    if optimized {
        cargo.arg("--release");
    }
    cargo.args(["--locked", "--package", package, "--manifest-path"]);
    cargo.arg(shell::root().join("Cargo.toml"));
    // On a terminal cargo shows its progress.
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    cargo.arg("--").args(args);
    cargo
}

/// Runs a check of `cargo xtask prove` to its short bound, as a step of `cargo xtask check`. The last line is
/// the result.
pub(crate) fn prove(check: &str) -> anyhow::Result<String> {
    last_line(check, run("aio-prove", true, ["--step", check].iter()))
}

/// Runs a task that packages libraries, as a step of `cargo xtask check`. The last line is the result.
pub(crate) fn packaging(args: &[&str]) -> anyhow::Result<String> {
    last_line(&args.join(" "), run(PACKAGING, false, args.iter()))
}

/// Checks the links between the pages, as a step of `cargo xtask check`. The last line is the result.
pub(crate) fn links() -> anyhow::Result<String> {
    last_line("links", run(DOCS, false, ["docs", "--links"].iter()))
}

fn last_line(name: &str, mut cargo: process::Command) -> anyhow::Result<String> {
    cargo.stderr(process::Stdio::inherit());
    let said = shell::output(&mut cargo).with_context(|| format!("{name} failed"))?;
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
    fn programs_that_measure_are_built_with_optimization() {
        for door in &DOORS {
            let line = shell::line(&door.cargo(["--quick"].iter()));
            let (profile, end) = match door.kind {
                Kind::Measuring => ("--release --locked", "-- --quick".to_owned()),
                Kind::Named => ("--locked", format!("-- {} --quick", door.task)),
            };
            assert!(
                line.contains(&format!("run {profile} --package {}", door.package)),
                "{line}"
            );
            assert!(line.ends_with(&end), "{line}");
        }
    }
}
