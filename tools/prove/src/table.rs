//! The results of the checks, as one table.

use std::fmt;

use serde::{Deserialize, Serialize};

use aio_tools::report::{self, Machine};

/// The end of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Good,
    Failed,
    Skipped,
}

/// A check's result.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) check: String,
    pub(crate) bound: String,
    pub(crate) found: String,
    pub(crate) seconds: f64,
    pub(crate) verdict: Verdict,
}

impl Row {
    pub(crate) fn said(&self) -> String {
        match self.verdict {
            Verdict::Good => self.found.clone(),
            Verdict::Failed => format!("FAILED: {}", self.found),
            Verdict::Skipped => format!("skipped: {}", self.found),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:.0} s): {}", self.check, self.seconds, self.said())
    }
}

/// Returns the table as TESTING.md quotes it.
pub(crate) fn markdown(rows: &[Row], long: bool) -> String {
    let mut lines = vec![
        format!(
            "`cargo xtask prove{}` on {}, {}:",
            if long { " --long" } else { "" },
            report::today(),
            Machine::this()
        ),
        String::new(),
        "| check | bound | found | seconds |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        // A longer text is put on one line, too.
        let said = row.said().replace('\n', " ").replace('|', "/");
        lines.push(format!(
            "| {} | {} | {said} | {:.0} |",
            row.check, row.bound, row.seconds
        ));
    }
    let seconds = rows.iter().fold(0.0, |all, row| all + row.seconds);
    lines.push(format!("| all | | | {seconds:.0} |"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_line() {
        let row = |verdict, found: &str| Row {
            check: "c".to_owned(),
            bound: "b".to_owned(),
            found: found.to_owned(),
            seconds: 1.6,
            verdict,
        };
        let rows = [
            row(Verdict::Good, "5"),
            row(Verdict::Failed, "a\nb | c"),
            row(Verdict::Skipped, "spin is not installed"),
        ];
        let text = markdown(&rows, true);
        let lines: Vec<&str> = text.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "| c | b | 5 | 2 |",
                "| c | b | FAILED: a b / c | 2 |",
                "| c | b | skipped: spin is not installed | 2 |",
                "| all | | | 5 |"
            ]
        );
        assert!(text.starts_with("`cargo xtask prove --long` on 2"));
    }
}
