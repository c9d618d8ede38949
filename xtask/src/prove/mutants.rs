//! Mutants: of changed lines only, or of whole crates.

use std::fs;

use anyhow::{Context as _, ensure};

use super::at::{At, Outcome, Result};
use crate::mutants::{CRATES, Score, mutate, mutate_changes};

pub(super) fn run(at: &At<'_>) -> Result {
    let directory = at.path("mutants");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    if !at.long {
        return of_changes(at);
    }
    let (mut scores, mut too_low) = (Vec::new(), Vec::new());
    for (library, at_least) in CRATES {
        let score = score(&at.said(&mut mutate(&directory.join(library), &[library]))?)?;
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

fn of_changes(at: &At<'_>) -> Result {
    let directory = at.path("mutants");
    let mut mutants = mutate_changes(&directory)?
        .context("there is nothing to compare with: no other commit, or none that differs")?;
    let said = at.said(&mut mutants)?;
    let nothing = [
        "No mutants to filter",
        "Found 0 mutants",
        "diff is empty",
        "no mutants",
    ];
    if nothing.iter().any(|words| said.contains(words)) {
        return Ok(Outcome::Found("no changed line that can be mutated".to_owned()));
    }
    Ok(Outcome::Found(score(&said)?.judge_changes(&directory)?))
}

fn score(said: &str) -> anyhow::Result<Score> {
    Score::read(said).context("cargo-mutants did not come to an end")
}
