//! The line coverage of the libraries, by cargo-llvm-cov with the LLVM tools of the compiler's version.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::at::{At, Outcome, Result};
use aio_tools::shell::{self, LIBRARIES};

/// The least coverage, in percent.
const AT_LEAST: f64 = 95.0;
/// Files that do not count: tests, and the kit, which only tests use.
const NOT_COUNTED: &str = r"(_tests\.rs|/tests/|/conformance/|proofs/|examples/)";

pub(crate) fn run(at: &At<'_>) -> Result {
    let Some(tools) = tools()? else {
        return Ok(Outcome::skipped(
            "the LLVM tools of the compiler's version are not installed",
        ));
    };
    let mut cargo = shell::cargo();
    cargo
        .args(["llvm-cov", "test", "--locked", "--summary-only"])
        .args(["--ignore-filename-regex", NOT_COUNTED])
        .args(LIBRARIES.iter().flat_map(|library| ["--package", library]))
        .env("LLVM_COV", tools.join("llvm-cov"))
        .env("LLVM_PROFDATA", tools.join("llvm-profdata"));
    let said = at.run(&mut cargo)?;
    let [regions, lines] = totals(&said).context("llvm-cov printed no totals")?;
    ensure!(
        lines >= AT_LEAST,
        "{lines} % of the lines are reached, {AT_LEAST} are promised"
    );
    Ok(Outcome::Found(format!(
        "{lines} % of the lines, {regions} % of the regions"
    )))
}

/// Returns the directory of the LLVM tools for this compiler.
fn tools() -> anyhow::Result<Option<PathBuf>> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = version.and_then(|version| version.split('.').next());
    let Some(major) = major else { return Ok(None) };
    let directory = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    Ok(directory.join("llvm-cov").exists().then_some(directory))
}

/// Returns the percentages of the regions and of the lines, from the last line: `TOTAL regions missed %
/// functions missed % lines missed %`.
fn totals(text: &str) -> Option<[f64; 2]> {
    let line = text.lines().rev().find(|line| line.starts_with("TOTAL"))?;
    let mut percent = line
        .split_whitespace()
        .filter_map(|word| word.strip_suffix('%')?.parse().ok());
    let regions = percent.next()?;
    Some([regions, percent.nth(1)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read() {
        let line = "TOTAL      100     10    90.00%    20   1   95.00%    200    4    98.00%    0   0   -";
        assert_eq!(totals(&format!("a.rs 1 1 1.00%\n{line}\n")), Some([90.0, 98.0]));
        assert_eq!(totals("nothing"), None);
    }
}
