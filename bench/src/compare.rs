//! `--compare OLD.json`: finds workloads that became slower by more than the noise.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::row::Row;

/// Ratios that differ by less than this count as equal, however quiet the machine was.
const LEAST: f64 = 1.05;

#[derive(Deserialize)]
struct Report {
    date: String,
    rows: Vec<Row>,
}

/// A figure of ours that became worse.
#[derive(Debug, PartialEq)]
pub(crate) struct Slower {
    what: String,
    before: f64,
    now: f64,
}

/// Prints the workloads that became slower or faster. Returns the number of slower ones.
pub(crate) fn print(old: &Path, rows: &[Row]) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(old).with_context(|| format!("cannot read {}", old.display()))?;
    let report: Report = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a file of `cargo xtask bench --json`", old.display()))?;
    let (slower, faster) = changes(&report.rows, rows);
    println!(
        "\nCompared with {} of {}, by ratios to the floor:",
        old.display(),
        report.date
    );
    for (word, list) in [("slower", &slower), ("faster", &faster)] {
        for change in list {
            println!(
                "  {word}: {}  {:.2} -> {:.2}",
                change.what, change.before, change.now
            );
        }
    }
    if slower.is_empty() {
        println!("  nothing became slower by more than the noise");
    }
    Ok(slower.len())
}

/// Returns the slower and the faster workloads: those whose spreads do not overlap and whose medians differ
/// clearly.
///
/// It compares ratios to the floor of the same round, not times, because machines differ and drift.
fn changes(old: &[Row], new: &[Row]) -> (Vec<Slower>, Vec<Slower>) {
    let (mut slower, mut faster) = (Vec::new(), Vec::new());
    for now in new.iter().filter(|row| row.is_ours()) {
        let Some(before) = old.iter().find(|row| row.is_same_case(now)) else {
            continue;
        };
        let (Some(was), Some(is)) = (before.ratio(), now.ratio()) else {
            continue;
        };
        let change = Slower {
            what: format!("{} {} n={} {}", now.id, now.workload, now.n, now.r#impl),
            before: was.median,
            now: is.median,
        };
        if is.low > was.high && is.median > was.median * LEAST {
            slower.push(change);
        } else if is.high < was.low && is.median * LEAST < was.median {
            faster.push(change);
        }
    }
    (slower, faster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u64, low: f64, median: f64, high: f64) -> Row {
        Row {
            ratio_to_floor: Some(median),
            ratio_min: Some(low),
            ratio_max: Some(high),
            ..Row::new("P3", "self-kick blocking", "aio", n)
        }
    }

    #[test]
    fn only_figures_beyond_both_spreads_have_changed() {
        let old = [
            row(0, 1.0, 1.1, 1.2),
            row(1, 1.0, 1.1, 1.2),
            row(2, 1.0, 1.0, 1.0),
            row(3, 2.0, 2.1, 2.2),
            row(4, 1.0, 1.0, 1.0),
        ];
        let new = [
            row(0, 1.3, 1.4, 1.5),    // slower
            row(1, 1.1, 1.4, 1.5),    // the spreads touch
            row(2, 1.01, 1.02, 1.03), // too little
            row(3, 1.0, 1.1, 1.2),    // faster
            row(5, 9.0, 9.0, 9.0),    // new
        ];
        let (slower, faster) = changes(&old, &new);
        assert_eq!(slower.iter().map(|row| row.now).collect::<Vec<_>>(), [1.4]);
        assert_eq!(faster.iter().map(|row| row.now).collect::<Vec<_>>(), [1.1]);
    }

    #[test]
    fn peers_and_the_floor_are_not_judged() {
        let peer = |ratio| Row {
            ratio_to_floor: Some(ratio),
            ratio_min: Some(ratio),
            ratio_max: Some(ratio),
            ..Row::new("P3", "self-kick blocking", "mio", 0)
        };
        let (slower, _) = changes(&[peer(1.0)], &[peer(3.0)]);
        assert_eq!(slower, []);
    }

    #[test]
    fn a_file_that_is_no_report_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("old.json");
        std::fs::write(&file, "[]").unwrap();
        let why = format!("{:#}", print(&file, &[]).unwrap_err());
        assert!(
            why.contains("is not a file of `cargo xtask bench --json`"),
            "{why}"
        );
        assert!(print(Path::new("/nowhere.json"), &[]).is_err());
    }
}
