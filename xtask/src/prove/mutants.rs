//! Whether the tests notice when the code is changed, by cargo-mutants: changed lines only, or whole crates.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::at::{At, Outcome, Result};
use crate::shell;

/// Of how many mutants in a hundred the tests must notice, and in which crates.
const AT_LEAST: f64 = 90.0;
const CRATES: [&str; 5] = [
    "aio-timers",
    "aio-handlers",
    "aio-backend-ladder",
    "aio-notify",
    "aio-pollctl",
];

pub(super) fn run(at: &At<'_>) -> Result {
    let output = at.path("mutants");
    let mut cargo = shell::cargo();
    cargo
        .args([
            "mutants",
            "--no-times",
            "--no-shuffle",
            "--colors=never",
            "--timeout=60",
            "--jobs=1",
            "--output",
        ])
        .arg(&output);
    for library in CRATES {
        cargo.args(["--package", library]);
    }
    if !at.long {
        let file = at.path("mutants.diff");
        let diff = changes()?;
        fs::write(&file, &diff).with_context(|| format!("cannot write {}", file.display()))?;
        cargo.arg("--in-diff").arg(&file);
    }
    // Whatever this was started with, a mutant is built in a directory of its own.
    cargo.env_remove("CARGO_TARGET_DIR");
    // It ends badly if a single one was missed; how many may be missed is decided here.
    let said = at.said(&mut cargo)?;
    if said.contains("No mutants to filter")
        || said.contains("Found 0 mutants")
        || said.contains("diff is empty")
        || said.contains("no mutants")
    {
        return Ok(Outcome::Found("no changed line that can be mutated".to_owned()));
    }
    let score = Score::read(&said).context("cargo-mutants did not come to an end")?;
    ensure!(
        score.percent() >= AT_LEAST,
        "{score}; {AT_LEAST} % are promised; see {}",
        output.display()
    );
    Ok(Outcome::Found(score.to_string()))
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
