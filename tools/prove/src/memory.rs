//! The progress of a long run, stored for its commit.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::table::{Row, Verdict};
use aio_tools::shell;

#[derive(Debug, Default, Deserialize, Serialize)]
struct Contents {
    commit: String,
    rows: Vec<Row>,
}

/// A file in the target directory, for one commit. If the work tree differs from its commit, nothing is
/// stored.
#[derive(Debug)]
pub(crate) struct Memory {
    file: PathBuf,
    contents: Contents,
    keeps: bool,
}

impl Memory {
    pub(crate) fn open(long: bool) -> anyhow::Result<Self> {
        let file = shell::target_dir()?.join("prove/long.json");
        let commit = commit();
        if long && commit.is_none() {
            println!("the work tree differs from its commit: nothing is remembered of this run");
        }
        let keeps = long && commit.is_some();
        let commit = commit.unwrap_or_default();
        // A file that cannot be read counts as missing.
        let kept = fs::read_to_string(&file)
            .ok()
            .and_then(|text| serde_json::from_str::<Contents>(&text).ok());
        let contents = kept
            .filter(|kept| keeps && kept.commit == commit)
            .unwrap_or_else(|| Contents {
                commit,
                rows: Vec::new(),
            });
        Ok(Self {
            file,
            contents,
            keeps,
        })
    }

    /// Returns the stored result of a check that succeeded. Failed and skipped checks run again.
    pub(crate) fn recall(&self, check: &str) -> Option<Row> {
        let mut rows = self.contents.rows.iter();
        rows.find(|row| row.check == check && row.verdict == Verdict::Good)
            .cloned()
    }

    pub(crate) fn keep(&mut self, row: &Row) -> anyhow::Result<()> {
        if !self.keeps {
            return Ok(());
        }
        self.contents.rows.retain(|other| other.check != row.check);
        self.contents.rows.push(row.clone());
        let text = serde_json::to_string_pretty(&self.contents)?;
        // Replaces the file atomically, because the run can be ended at any moment.
        let new = self.file.with_extension("new");
        fs::write(&new, text + "\n")
            .and_then(|()| fs::rename(&new, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// Returns the commit if the work tree is clean.
pub(crate) fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .current_dir(shell::root())
            .args(args)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let clean = git(&["status", "--porcelain"])?.is_empty();
    clean.then(|| git(&["rev-parse", "HEAD"]))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(check: &str, verdict: Verdict) -> Row {
        Row {
            check: check.to_owned(),
            bound: String::new(),
            found: String::new(),
            seconds: 0.0,
            verdict,
        }
    }

    #[test]
    fn only_successful_checks_are_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory {
            file: directory.path().join("long.json"),
            contents: Contents::default(),
            keeps: true,
        };
        memory.keep(&row("a", Verdict::Failed)).unwrap();
        assert!(memory.recall("a").is_none());
        memory.keep(&row("a", Verdict::Good)).unwrap();
        memory.keep(&row("b", Verdict::Skipped)).unwrap();
        assert!(memory.recall("a").is_some() && memory.recall("b").is_none());
        let text = fs::read_to_string(&memory.file).unwrap();
        let read: Contents = serde_json::from_str(&text).unwrap();
        assert_eq!(read.rows.len(), 2, "one row a check");
    }
}
