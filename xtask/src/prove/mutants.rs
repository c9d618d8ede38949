//! Whether the tests notice when the code is changed, by cargo-mutants: changed lines only, or whole crates.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::at::{At, Outcome, Result};
use crate::shell;

/// Of how many mutants in a hundred the tests of the same crate must notice.
const CRATES: [(&str, f64); 9] = [
    ("aio-timers", 90.0),
    ("aio-handlers", 90.0),
    ("aio-backend-ladder", 90.0),
    ("aio-notify", 90.0),
    ("aio-pollctl", 90.0),
    ("aio-backend", 85.0),
    ("aio-backend-ppoll", 85.0),
    ("aio-backend-epoll", 85.0),
    ("aio-context", 85.0),
];
/// The same, of changed lines, wherever they are.
const OF_CHANGES: f64 = 90.0;

pub(super) fn run(at: &At<'_>) -> Result {
    if !at.long {
        return of_changes(at);
    }
    fs::create_dir_all(at.path("mutants"))?;
    let (mut scores, mut too_low) = (Vec::new(), Vec::new());
    for (library, at_least) in CRATES {
        let score = score(&at.said(&mut mutate(at, &[library]))?)?;
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
        at.path("mutants").display()
    );
    Ok(Outcome::Found(scores.join("; ")))
}

fn of_changes(at: &At<'_>) -> Result {
    let file = at.path("mutants.diff");
    let diff = changes()?;
    fs::write(&file, &diff).with_context(|| format!("cannot write {}", file.display()))?;
    let mut cargo = mutate(at, &CRATES.map(|(library, _)| library));
    let said = at.said(cargo.arg("--in-diff").arg(&file))?;
    let nothing = [
        "No mutants to filter",
        "Found 0 mutants",
        "diff is empty",
        "no mutants",
    ];
    if nothing.iter().any(|words| said.contains(words)) {
        return Ok(Outcome::Found("no changed line that can be mutated".to_owned()));
    }
    let score = score(&said)?;
    ensure!(
        score.percent() >= OF_CHANGES,
        "{score}; {OF_CHANGES} % are promised; see {}",
        at.path("mutants").display()
    );
    Ok(Outcome::Found(score.to_string()))
}

/// What tries the mutants of some crates, each with the tests of its own crate. It ends badly if a single one was missed; how
/// many may be missed is decided here.
fn mutate(at: &At<'_>, libraries: &[&str]) -> Command {
    let directory = match libraries {
        [library] => at.path("mutants").join(library),
        _ => at.path("mutants"),
    };
    let mut cargo = shell::cargo();
    cargo
        .args(["mutants", "--no-times", "--no-shuffle", "--colors=never"])
        // Each test in a process of its own: some close descriptors behind the loop's back.
        .args(["--test-tool=nextest", "--timeout=60", "--jobs=1", "--output"])
        .arg(directory)
        // No examples in documents: to link each of them takes longer than all tests.
        .args(["--cargo-test-arg=--lib", "--cargo-test-arg=--tests"])
        .args(libraries.iter().flat_map(|library| ["--package", library]))
        .env("NEXTEST_PROFILE", "mutants")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_TEST_DEBUG", "0")
        // Whatever this was started with, a mutant is built in a directory of its own.
        .env_remove("CARGO_TARGET_DIR");
    cargo
}

fn score(said: &str) -> anyhow::Result<Score> {
    Score::read(said).context("cargo-mutants did not come to an end")
}

/// What the last commit that others have, or else the last commit, does not have.
fn changes() -> anyhow::Result<Vec<u8>> {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(shell::root()).args(args).output();
        output.context("cannot start git")
    };
    let ahead = git(&["diff", "--no-ext-diff", "origin/main"])?;
    if ahead.status.success() && !ahead.stdout.is_empty() {
        return Ok(ahead.stdout);
    }
    let last = git(&["diff", "--no-ext-diff", "HEAD~1"])?;
    ensure!(
        last.status.success(),
        "there is no earlier commit: {}",
        String::from_utf8_lossy(&last.stderr)
    );
    Ok(last.stdout)
}

/// What became of the mutants that could be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Score {
    missed: u32,
    noticed: u32,
}

impl Score {
    /// Reads `151 mutants tested: 29 missed, 88 caught, 28 unviable, 6 timeouts`.
    fn read(text: &str) -> Option<Self> {
        let line = text.lines().rev().find(|line| line.contains(" tested"))?;
        let count = |what: &str| {
            let words: Vec<&str> = line
                .split([' ', ',', ':'])
                .filter(|word| !word.is_empty())
                .collect();
            let place = words.iter().position(|word| *word == what)?;
            words.get(place.checked_sub(1)?)?.parse::<u32>().ok()
        };
        let noticed = count("caught").unwrap_or(0) + count("timeouts").or(count("timeout")).unwrap_or(0);
        Some(Self {
            missed: count("missed").unwrap_or(0),
            noticed,
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
    fn scores_are_read() {
        let text =
            "Found 151 mutants to test\n151 mutants tested: 29 missed, 88 caught, 28 unviable, 6 timeouts\n";
        let score = Score::read(text).unwrap();
        assert_eq!(
            score,
            Score {
                missed: 29,
                noticed: 94
            }
        );
        assert!((score.percent() - 76.4).abs() < 0.1);
        let text = "3 mutants tested in 5s: 3 caught\n";
        assert_eq!(Score::read(text).unwrap().percent(), 100.0);
        assert_eq!(Score::read("nothing"), None);
    }
}
