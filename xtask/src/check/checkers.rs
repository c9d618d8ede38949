//! The model checkers, each with the faults that it must find: loom tries every order of a few steps, up to a number of
//! preemptions; shuttle tries random orders of whole contexts, and such with few preemptions.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::interrupt::Interrupt;
use crate::shell;

/// Within their usual bounds, models that take longer do not end.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// The limit with bounds beyond the usual ones.
const LONG_LIMIT: Duration = Duration::from_secs(12 * 3600);
/// Environment variables that would override the flags given here, or change the explored orders.
const INTERFERES: [&str; 13] = [
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
    "SHUTTLE_RANDOM_SEED",
];

/// A checker: the flag that builds for it, its tests, and their default bounds, which the environment can raise.
struct Checker {
    name: &'static str,
    tests: &'static [&'static [&'static str]],
    bounds: &'static [(&'static str, &'static str)],
}

const LOOM: Checker = Checker {
    name: "loom",
    tests: &[
        &["--package", "aio-notify", "--lib"],
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
    /// Runs its tests; the bounds that were in force, how many models there were, and how many faults.
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
        let mut cargo = shell::cargo();
        cargo
            .args(["test", "--quiet", "--release", "--locked"])
            .args(tests)
            .arg("--target-dir")
            .arg(shell::target_dir()?.join(self.name))
            .env("RUSTFLAGS", format!("--cfg {} -C debug-assertions=on", self.name));
        for name in INTERFERES {
            cargo.env_remove(name);
        }
        cargo.envs(self.bounds.iter().map(|(name, _)| name).zip(bounds));
        Ok(cargo)
    }
}

/// An empty value is none: it would make loom panic.
fn bound(usual: &str, asked: Option<String>) -> String {
    asked
        .filter(|asked| !asked.is_empty())
        .unwrap_or_else(|| usual.to_owned())
}

/// How many models, and how many faults, a list of tests has.
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
    fn faults_are_counted_apart() {
        let list = "models::n1_elided: test\nmodels::n1_planted_skip: test\nn2_nested: test\n\n3 tests, 0 benchmarks\n";
        assert_eq!(count(list), (2, 1));
    }
}
