//! The promela models. Each must hold, and must fail with each of the bugs that its first comment lists.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::interrupt::Interrupt;
use crate::shell;

/// The time limit of a search. A model that takes longer has grown.
const LIMIT: Duration = Duration::from_secs(10 * 60);

pub(super) fn check() -> anyhow::Result<String> {
    if let Some(missing) = ["spin", "cc"].into_iter().find(|tool| !shell::is_installed(tool)) {
        return Ok(super::skipped::skipped(&format!("{missing} is not installed")));
    }
    let interrupt = Interrupt::catch()?;
    let mut models = std::fs::read_dir(shell::root().join("proofs/promela"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    models.retain(|path| path.extension().is_some_and(|extension| extension == "pml"));
    models.sort();
    ensure!(!models.is_empty(), "there are no models in proofs/promela");
    let (mut states, mut found) = (0, 0);
    for model in &models {
        let name = model.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(model)?;
        let verdict = search(model, None, &interrupt)?;
        ensure!(verdict.errors == 0, "{name} does not hold");
        states += verdict.states;
        for bug in bugs(&text) {
            let verdict = search(model, Some(bug), &interrupt)?;
            ensure!(verdict.errors > 0, "{name} does not find the bug {bug}");
            found += 1;
        }
    }
    Ok(format!(
        "{} models, {states} states; {found} of {found} bugs found",
        models.len()
    ))
}

/// Returns the bugs that a model's comments name.
fn bugs(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.trim_start_matches([' ', '*']).strip_prefix("bug: "))
        .filter_map(|rest| rest.split_whitespace().next())
}

#[derive(Debug, PartialEq)]
struct Verdict {
    errors: u64,
    states: u64,
}

fn search(model: &Path, bug: Option<&str>, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
    let directory = tempfile::tempdir()?;
    let mut spin = Command::new("spin");
    spin.current_dir(directory.path())
        .args(bug.map(|bug| format!("-D{bug}")))
        .arg("-a")
        .arg(model)
        .stdout(Stdio::null());
    shell::run_within(&mut spin, LIMIT, interrupt)?;
    let mut cc = Command::new("cc");
    cc.current_dir(directory.path())
        .args(["-O1", "-w", "-DSAFETY", "-o", "pan", "pan.c"]);
    shell::run_within(&mut cc, LIMIT, interrupt)?;
    let pan = Command::new(directory.path().join("pan"))
        .current_dir(directory.path())
        .arg("-m100000")
        .output()
        .context("cannot start the search")?;
    let said = String::from_utf8_lossy(&pan.stdout);
    let Some(verdict) = verdict(&said) else {
        bail!("the search of {} has no result: {said}", model.display());
    };
    ensure!(
        !said.contains("max search depth too small"),
        "{} is searched in part only",
        model.display()
    );
    Ok(verdict)
}

fn verdict(said: &str) -> Option<Verdict> {
    let errors = said.split("errors:").nth(1)?.split_whitespace().next()?;
    let states = said.split_once("states, stored")?.0.split_whitespace().last()?;
    Some(Verdict {
        errors: errors.parse().ok()?,
        states: states.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_a_search_is_parsed() {
        let said = "State-vector 40 byte, depth reached 47, errors: 2\n    13104 states, stored\n     9 states, matched\n";
        assert_eq!(
            verdict(said),
            Some(Verdict {
                errors: 2,
                states: 13_104
            })
        );
        assert_eq!(verdict("pan: out of memory"), None);
    }

    #[test]
    fn bugs_are_read_from_the_comment() {
        let text = "/* A model.\n *\n * bug: ONE  what\n * bug: TWO   else\n */\n#ifdef ONE\n";
        assert_eq!(bugs(text).collect::<Vec<_>>(), ["ONE", "TWO"]);
    }
}
