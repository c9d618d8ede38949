//! Mutation tests by cargo-mutants: of the changed lines, as many as fit into some minutes, or of whole
//! crates.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::at::{At, Outcome, Result};
use aio_tools::shell::{self, LIBRARIES};

/// The least percentage of mutants that the tests of the same crate must detect.
const CRATES: [(&str, f64); 14] = [
    ("aio-timers", 90.0),
    ("aio-handlers", 90.0),
    ("aio-backend-ladder", 90.0),
    ("aio-notify", 90.0),
    ("aio-pollctl", 90.0),
    ("aio-pollset", 90.0),
    ("aio-backend", 85.0),
    ("aio-backend-ppoll", 85.0),
    ("aio-backend-epoll", 85.0),
    ("aio-backend-uring", 85.0),
    ("aio-context", 85.0),
    ("aio-sources", 85.0),
    ("aio-executor", 85.0),
    ("aio-metrics", 85.0),
];
/// The least percentage for changed lines of any crate. One of a few may be missed, because a mutation may
/// leave the behaviour unchanged.
const OF_CHANGES: f64 = 90.0;
/// The time for the mutants of changed lines.
const TIME: Duration = Duration::from_secs(5 * 60);

pub(crate) fn run(at: &At<'_>) -> Result {
    let directory = at.path("mutants");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    if !at.long {
        return of_changes(at, &directory);
    }
    let (mut scores, mut too_low) = (Vec::new(), Vec::new());
    for (library, at_least) in CRATES {
        let directory = directory.join(library);
        let said = at.said(&mut mutate(&directory, &[library]))?;
        ensure!(said.contains(" tested"), "cargo-mutants did not come to an end");
        let score = Score::of(&directory);
        let line = format!("{library} {score}");
        println!("{line}");
        if score.percent() < at_least {
            too_low.push(format!("{line}; {at_least} % are promised"));
        }
        scores.push(line);
    }
    ensure!(
        too_low.is_empty(),
        "{}; see {}",
        too_low.join("; "),
        directory.display()
    );
    Ok(Outcome::Found(scores.join("; ")))
}

fn of_changes(at: &At<'_>, directory: &Path) -> Result {
    let Some(mut cargo) = mutate_changes(directory)? else {
        return Ok(Outcome::skipped("there is no other commit to compare with"));
    };
    let ended = at.as_far_as(&mut cargo, TIME)?;
    let said = Score::of(directory).judge_changes(directory)?;
    match ended.map(|status| status.code()) {
        None => Ok(Outcome::Found(format!(
            "{said}; the others were not tried within {} s",
            TIME.as_secs()
        ))),
        // Some mutants were missed, or made the tests hang; the score counts these.
        Some(Some(0 | 2 | 3)) => Ok(Outcome::Found(said)),
        Some(_) => bail!("cargo-mutants failed"),
    }
}

/// Returns a command that tests the mutants of some crates, each with the tests of its own crate. The command
/// fails if a single mutant was missed; the caller applies the limit.
fn mutate(directory: &Path, libraries: &[&str]) -> Command {
    let mut cargo = shell::cargo();
    cargo
        .args(["mutants", "--no-times", "--no-shuffle", "--colors=never"])
        // Each test in a process of its own, because some close descriptors that the loop uses.
        .args(["--test-tool=nextest", "--timeout=60", "--jobs=1", "--output"])
        .arg(directory)
        // Without documentation examples, because linking each of them takes longer than all tests.
        .args(["--cargo-test-arg=--lib", "--cargo-test-arg=--tests"])
        .args(libraries.iter().flat_map(|library| ["--package", library]))
        .env("NEXTEST_PROFILE", "mutants")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_TEST_DEBUG", "0")
        // A mutant is built in a directory of its own, also if this program was started with another one.
        .env_remove("CARGO_TARGET_DIR");
    cargo
}

/// Returns a command that tests the mutants of the changed lines. It writes to `directory`, which must exist;
/// the output of an earlier run is removed. Returns `None` if there is nothing to compare with.
fn mutate_changes(directory: &Path) -> anyhow::Result<Option<Command>> {
    let earlier = directory.join("mutants.out");
    if earlier.exists() {
        fs::remove_dir_all(&earlier).with_context(|| format!("cannot remove {}", earlier.display()))?;
    }
    let Some(diff) = changes()? else { return Ok(None) };
    let file = directory.join("changes.diff");
    fs::write(&file, diff).with_context(|| format!("cannot write {}", file.display()))?;
    let mut cargo = mutate(directory, &LIBRARIES);
    cargo.arg("--in-diff").arg(file);
    Ok(Some(cargo))
}

/// Returns the difference to the last published commit, or else to the commit before the last one.
fn changes() -> anyhow::Result<Option<Vec<u8>>> {
    for earlier in ["origin/main", "HEAD~1"] {
        let mut git = Command::new("git");
        git.current_dir(shell::root())
            .args(["diff", "--no-ext-diff", earlier]);
        let output = git.output().context("cannot start git")?;
        if output.status.success() && !output.stdout.is_empty() {
            return Ok(Some(output.stdout));
        }
    }
    Ok(None)
}

/// The counts of the mutants that could be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Score {
    missed: u32,
    noticed: u32,
}

impl Score {
    /// Counts the outcomes of a run, also of an interrupted one.
    fn of(directory: &Path) -> Self {
        let count = |name: &str| {
            let file = directory.join("mutants.out").join(name);
            fs::read_to_string(file).map_or(0, |text| u32::try_from(text.lines().count()).unwrap_or(u32::MAX))
        };
        Self {
            missed: count("missed.txt"),
            noticed: count("caught.txt") + count("timeout.txt"),
        }
    }

    /// Fails if the tests detect too few mutants of changed lines.
    fn judge_changes(self, directory: &Path) -> anyhow::Result<String> {
        ensure!(
            self.missed <= 1 || self.percent() >= OF_CHANGES,
            "{self}; {OF_CHANGES} % are promised; {} has the others",
            directory.join("mutants.out/missed.txt").display()
        );
        Ok(match self.missed + self.noticed {
            0 => "no mutants".to_owned(),
            _ => self.to_string(),
        })
    }

    fn percent(self) -> f64 {
        match self.missed + self.noticed {
            0 => 100.0,
            all => 100.0 * f64::from(self.noticed) / f64::from(all),
        }
    }
}

impl std::fmt::Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} mutants noticed, {:.1} %",
            self.noticed,
            self.noticed + self.missed,
            self.percent()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_ended_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let none = Score::of(directory.path());
        assert_eq!(none.judge_changes(directory.path()).unwrap(), "no mutants");
        let out = directory.path().join("mutants.out");
        fs::create_dir(&out).unwrap();
        let write =
            |name: &str, lines: usize| fs::write(out.join(name), "a.rs:1: it\n".repeat(lines)).unwrap();
        write("caught.txt", 7);
        write("timeout.txt", 1);
        write("missed.txt", 1);
        let one = Score::of(directory.path());
        assert_eq!(
            one,
            Score {
                missed: 1,
                noticed: 8
            }
        );
        assert!(one.judge_changes(directory.path()).is_ok());
        write("missed.txt", 2);
        let two = Score::of(directory.path()).judge_changes(directory.path());
        assert!(two.unwrap_err().to_string().contains("missed.txt"));
        write("caught.txt", 17);
        assert!(
            Score::of(directory.path())
                .judge_changes(directory.path())
                .is_ok()
        );
    }
}
