//! Fuzzes every target of `fuzz/`, beginning with its seeds and the corpus of earlier runs.

use std::fs;
use std::process::Command;

use aio_tools::shell;
use aio_tools::tool::Tool;
use anyhow::{Context as _, bail, ensure};

use crate::at::{At, Outcome, Result};

const FUZZ: Tool = Tool {
    program: "cargo-fuzz",
    package: "cargo-fuzz@0.13.2",
};

/// Builds each target, and runs it for a minute, or for ten.
pub(crate) fn run(at: &At<'_>) -> Result {
    let targets = targets()?;
    for target in &targets {
        let mut build = match tool(at)? {
            Ok(fuzz) => fuzz,
            Err(why) => return Ok(Outcome::Skipped(why)),
        };
        at.build(build.args(["build", target]))?;
        let Ok(mut fuzz) = tool(at)? else {
            bail!("{} has gone", FUZZ.program);
        };
        let corpus = shell::root().join("fuzz/corpus").join(target);
        fs::create_dir_all(&corpus)?;
        let time = format!("-max_total_time={}", at.pick(60, 600));
        fuzz.args(["run", target])
            .arg(&corpus)
            .arg(shell::root().join("fuzz/seeds").join(target));
        at.run(fuzz.args(["--", time.as_str()]))?;
    }
    Ok(Outcome::Found(format!("{} targets, 0 crashes", targets.len())))
}

/// Returns the command of the tool, or the reason why it is missing.
fn tool(at: &At<'_>) -> anyhow::Result<std::result::Result<Command, String>> {
    let mut tool = FUZZ.built_by(&[], |build| at.build(build).map(drop))?;
    if let Ok(fuzz) = &mut tool {
        // The instrumentation is an unstable option of the compiler.
        fuzz.env("RUSTC_BOOTSTRAP", "1");
    }
    Ok(tool)
}

/// Returns the names of all targets.
fn targets() -> anyhow::Result<Vec<String>> {
    let directory = shell::root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut targets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(name) = path.file_stem() {
            targets.push(name.to_string_lossy().into_owned());
        }
    }
    targets.sort();
    ensure!(
        !targets.is_empty(),
        "there are no targets in {}",
        directory.display()
    );
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds() {
        for target in targets().unwrap() {
            let seeds = shell::root().join("fuzz/seeds").join(&target);
            assert!(fs::read_dir(&seeds).unwrap().count() >= 5, "{target}");
        }
    }
}
