//! The model checkers, each with the faults that it must find. loom tries every order of a few steps, up to a
//! number of preemptions. shuttle tries random orders of whole contexts, including orders with few
//! preemptions.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::tidy;
use crate::interrupt::Interrupt;
use crate::shell;

/// The separate workspace that builds the libraries for the checkers.
pub(super) const WORKSPACE: &str = "proofs/modelled";
/// The time limit with the usual bounds. Models that take longer count as hung.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// The time limit with bounds beyond the usual ones.
const LONG_LIMIT: Duration = Duration::from_secs(12 * 3600);
/// Environment variables that would override the flags given here, or change the explored orders.
const INTERFERES: [&str; 14] = [
    "AIO_PLANT",
    "AIO_PLANT_IN",
    "AIO_SCHEDULE",
    "CARGO_ENCODED_RUSTFLAGS",
    "LOOM_CHECKPOINT_FILE",
    "LOOM_CHECKPOINT_INTERVAL",
    "LOOM_LOCATION",
    "LOOM_LOG",
    "LOOM_MAX_BRANCHES",
    "LOOM_MAX_DURATION",
    "LOOM_MAX_PERMUTATIONS",
    "LOOM_MAX_THREADS",
    "RUSTFLAGS",
    "SHUTTLE_RANDOM_SEED",
];

/// A checker: its name, the feature that builds for it, its tests, and their default bounds. The environment
/// can raise the bounds.
struct Checker {
    name: &'static str,
    tests: &'static [&'static [&'static str]],
    bounds: &'static [(&'static str, &'static str)],
}

const LOOM: Checker = Checker {
    name: "loom",
    tests: &[
        &["--package", "aio-notify", "--test", "models"],
        &["--package", "aio-schedules", "--test", "models"],
    ],
    bounds: &[("LOOM_MAX_PREEMPTIONS", "2")],
};

const SHUTTLE: Checker = Checker {
    name: "shuttle",
    tests: &[&["--package", "aio-schedules", "--test", "schedules"]],
    bounds: &[("AIO_RANDOM", "20000"), ("AIO_PCT", "20000")],
};

pub(super) fn loom() -> anyhow::Result<String> {
    let untried = untried()?;
    ensure!(untried.is_empty(), "no model plants {}", untried.join(", "));
    let ([preemptions], models, faults) = LOOM.run()?;
    Ok(format!(
        "{models} models, up to {preemptions} preemptions; {faults} of {faults} faults found"
    ))
}

pub(super) fn shuttle() -> anyhow::Result<String> {
    let ([random, pct], scenarios, faults) = SHUTTLE.run()?;
    Ok(format!(
        "{scenarios} scenarios in {random} random and {pct} PCT(3) orders; {faults} of {faults} faults found"
    ))
}

impl Checker {
    /// Runs the tests. Returns the bounds in force, the number of models, and the number of faults.
    fn run<const N: usize>(&self) -> anyhow::Result<([String; N], usize, usize)> {
        let interrupt = Interrupt::catch()?;
        let asked = self.bounds.iter().map(|(name, _)| std::env::var(name).ok());
        let bounds = self
            .bounds
            .iter()
            .zip(asked)
            .map(|((_, usual), asked)| bound(usual, asked));
        let bounds: Vec<String> = bounds.collect();
        let is_usual = self
            .bounds
            .iter()
            .zip(&bounds)
            .all(|((_, usual), bound)| usual == bound);
        let limit = if is_usual { LIMIT } else { LONG_LIMIT };
        let (mut models, mut faults) = (0, 0);
        for tests in self.tests {
            let listed = self
                .cargo(tests, &bounds)?
                .args(["--", "--list"])
                .output()
                .context("cannot list the tests")?;
            ensure!(
                listed.status.success(),
                "{}",
                String::from_utf8_lossy(&listed.stderr)
            );
            let (of_models, of_faults) = count(&String::from_utf8_lossy(&listed.stdout));
            ensure!(
                of_models > 0 && of_faults > 0,
                "there are no tests for {}",
                self.name
            );
            models += of_models;
            faults += of_faults;
            shell::run_within(&mut self.cargo(tests, &bounds)?, limit, &interrupt)?;
        }
        let bounds = bounds.try_into().ok().context("as many as there are bounds")?;
        Ok((bounds, models, faults))
    }

    fn cargo(&self, tests: &[&str], bounds: &[String]) -> anyhow::Result<Command> {
        let mut cargo = shell::cargo_in(WORKSPACE);
        cargo
            .args(["test", "--quiet", "--release", "--locked"])
            .args(["--features", self.name])
            .args(tests)
            .arg("--target-dir")
            .arg(shell::target_dir()?.join("modelled"));
        for name in INTERFERES {
            cargo.env_remove(name);
        }
        cargo.envs(self.bounds.iter().map(|(name, _)| name).zip(bounds));
        Ok(cargo)
    }
}

/// An empty value counts as none, because it would make loom panic.
fn bound(usual: &str, asked: Option<String>) -> String {
    asked
        .filter(|asked| !asked.is_empty())
        .unwrap_or_else(|| usual.to_owned())
}

/// Returns the faults beside the code of the libraries that no list of models and scenarios names.
fn untried() -> anyhow::Result<Vec<String>> {
    let (mut beside_code, mut tried) = (BTreeSet::new(), BTreeSet::new());
    for file in tidy::tracked()? {
        let Ok(text) = fs::read_to_string(shell::root().join(&file)) else {
            continue;
        };
        if file.starts_with(WORKSPACE) {
            tried.extend(planted(&text));
        } else if file.to_string_lossy().starts_with("aio-") && file.extension().is_some_and(|is| is == "rs")
        {
            beside_code.extend(faults(&text));
        }
    }
    ensure!(
        !beside_code.is_empty(),
        "the libraries have no faults to be planted"
    );
    Ok(beside_code.difference(&tried).cloned().collect())
}

/// Returns the names in `faulty!(Name, ..)` outside comments.
fn faults(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"));
    let code: String = code.collect();
    let name = |rest: &str| {
        rest.split(|letter: char| !letter.is_alphanumeric())
            .next()
            .map(str::to_owned)
    };
    code.split("faulty!(").skip(1).filter_map(name).collect()
}

/// Returns the names in the lines `test: Name in models;` of a list of faults.
fn planted(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let (_, fault) = line.split_once("_planted_")?.1.split_once(": ")?;
        Some(fault.split_once(" in ")?.0.to_owned())
    })
}

/// Returns the numbers of models and of faults in a list of tests.
fn count(list: &str) -> (usize, usize) {
    let (faults, models) = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .partition::<Vec<_>, _>(|name| name.contains("_planted_"));
    (models.len(), faults.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_is_no_value() {
        assert_eq!(bound("2", None), "2");
        assert_eq!(bound("2", Some(String::new())), "2");
        assert_eq!(bound("2", Some("3".to_owned())), "3");
    }

    #[test]
    fn a_fault_that_no_model_plants_is_found() {
        let code = "/// `faulty!(NAME, right)`\nlet a = faulty!(LeftOut, b());\nlet b = faulty!(\n    Wrapped,\n    c,\n);\nfaulty!(Late: c());\nmacro_rules! faulty {\n";
        assert_eq!(faults(code), ["LeftOut", "Wrapped", "Late"]);
        let list = "faults! {\n    n1_planted_late: Late in one two;\n}\n";
        assert_eq!(planted(list).collect::<Vec<_>>(), ["Late"]);
    }

    #[test]
    fn faults_are_counted_apart() {
        let list = "models::n1_elided: test\nmodels::n1_planted_skip: test\nn2_nested: test\n\n3 tests, 0 benchmarks\n";
        assert_eq!(count(list), (2, 1));
    }
}
