//! The hundred hostile cases. TESTING.md has a row for each, and each row names files that have a test of
//! that number, or the reason why there is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::tidy;
use crate::shell;

const CASES: u32 = 100;
/// The directory of files that are named without a path. Each file in it must have a row.
const HOME: &str = "aio-context/tests/hostile";
/// The beginning of the reason in a row without a test.
const NO_TEST: &str = "later:";

/// A row of the table: its number, and the texts of its second and third column.
struct Row<'a> {
    number: u32,
    case: &'a str,
    test: &'a str,
}

pub(super) fn check() -> anyhow::Result<String> {
    let testing = fs::read_to_string(shell::root().join("TESTING.md")).context("TESTING.md")?;
    let rows = rows(&testing);
    let read = |name: &str| fs::read_to_string(shell::root().join(path(name))).ok();
    let mut faults = faults(&rows, read);
    for file in tidy::tracked()?.iter().filter(|file| file.starts_with(HOME)) {
        let text = fs::read_to_string(shell::root().join(file)).unwrap_or_default();
        faults.extend(strangers(file, &text, &rows));
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    let untested = rows.iter().filter(|row| is_excused(row.test)).count();
    Ok(format!(
        "{} cases with a test, {untested} with a reason",
        rows.len() - untested
    ))
}

/// Returns the rows that begin with a number and name a test in their third column. Other tables have no such
/// rows.
fn rows(testing: &str) -> Vec<Row<'_>> {
    let section = testing
        .split("\n## The hundred hostile cases")
        .nth(1)
        .unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    section
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            Some(Row {
                number: cells.next()?.parse().ok()?,
                case: cells.next()?,
                test: cells.next()?,
            })
        })
        .collect()
}

fn is_excused(test: &str) -> bool {
    test.starts_with(NO_TEST)
}

/// Returns the names in backticks.
fn files(test: &str) -> impl Iterator<Item = &str> {
    test.split('`').skip(1).step_by(2)
}

fn path(name: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        format!("{HOME}/{name}")
    }
}

/// Returns `true` if a file has a test of that number: a function, or a line from which a macro makes one.
fn has_case(text: &str, number: u32) -> bool {
    cases_in(text).any(|found| found == number)
}

/// Returns the numbers of the tests in a file.
fn cases_in(text: &str) -> impl Iterator<Item = u32> {
    text.lines().filter_map(|line| {
        let line = line.trim_start();
        let name = match line.strip_prefix("fn case_") {
            Some(name) => name,
            // A line as in `models!`. A line of `everywhere!` has its function elsewhere in the file.
            None => line.strip_prefix("case_").filter(|name| name.contains("=>"))?,
        };
        name.split('_').next()?.parse().ok()
    })
}

fn faults(rows: &[Row<'_>], read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
    if numbers != (1..=CASES).collect::<Vec<_>>() {
        let missing: Vec<u32> = (1..=CASES).filter(|number| !numbers.contains(number)).collect();
        faults.push(format!(
            "TESTING.md should have one row for each of 1 to {CASES}, in order; missing: {missing:?}"
        ));
    }
    for row in rows {
        let number = row.number;
        if row.case.is_empty() {
            faults.push(format!("row {number} does not describe the case"));
        }
        if is_excused(row.test) {
            continue;
        }
        if files(row.test).next().is_none() {
            faults.push(format!(
                "row {number} names no test and gives no reason: {:?}",
                row.test
            ));
        }
        for name in files(row.test) {
            match read(name) {
                None => faults.push(format!("row {number}: there is no {}", path(name))),
                Some(text) if !has_case(&text, number) => {
                    faults.push(format!(
                        "row {number}: {} has no test case_{number:02}_",
                        path(name)
                    ));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

/// Returns the tests with a number whose row does not name their file.
fn strangers(file: &Path, text: &str, rows: &[Row<'_>]) -> Vec<String> {
    let rows: BTreeMap<u32, &Row<'_>> = rows.iter().map(|row| (row.number, row)).collect();
    let is_named = |number: &u32| {
        let row = rows.get(number);
        row.is_some_and(|row| files(row.test).any(|name| Path::new(&path(name)) == file))
    };
    cases_in(text)
        .filter(|number| !is_named(number))
        .map(|number| {
            format!(
                "{} has a test of case {number}, and its row does not say so",
                file.display()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "    fn case_07_is_a_test() {}\n// fn case_08_is_none\nmodels! {\n    case_100_model => one;\n    case_09_listed\n}";

    /// Returns a correct table with one change.
    fn table(change: impl Fn(u32) -> Option<&'static str>) -> String {
        let mut text = "\n## Before\n| 1 | another table | `x.rs` |\n## The hundred hostile cases\n\n| # | case | test |\n|---|---|---|\n".to_owned();
        for number in 1..=CASES {
            let row = change(number).unwrap_or("| what | `a.rs` | all | |");
            text += &format!("| {number} {row}\n");
        }
        text + "\n## After\n| 5 | a row | `nowhere.rs` |\n"
    }

    fn found(text: &str) -> Vec<String> {
        let all: String = (1..=CASES)
            .map(|number| format!("fn case_{number:02}_x() {{}}\n"))
            .collect();
        faults(&rows(text), |name| (name == "a.rs").then(|| all.clone()))
    }

    #[test]
    fn numbers_are_read_from_names() {
        assert_eq!(cases_in(TEXT).collect::<Vec<_>>(), [7, 100]);
        assert!(has_case(TEXT, 7) && !has_case(TEXT, 8) && !has_case(TEXT, 9));
    }

    #[test]
    fn a_table_that_is_right_has_no_faults() {
        assert_eq!(found(&table(|_| None)), Vec::<String>::new());
        let later = |number| (number == 27).then_some("| rings | later: with the backend on rings | | |");
        assert_eq!(found(&table(later)), Vec::<String>::new());
    }

    #[test]
    fn missing_tests_are_found() {
        let one = |row: &'static str| found(&table(|number| (number == 5).then_some(row)));
        assert!(one("| what | `b.rs` | all | |")[0].contains("there is no"));
        assert!(one("| what | soon | all | |")[0].contains("no reason"));
        assert!(one("| | `a.rs` | all | |")[0].contains("does not describe"));
        let without = |name: &str| (name == "a.rs").then(|| "fn case_55_x() {}".to_owned());
        assert_eq!(faults(&rows(&table(|_| None)), without).len(), 99);
        let text = table(|_| None).replace("| 50 |", "| 51 |");
        assert!(found(&text)[0].contains("missing: [50]"));
        assert!(!found("no table at all").is_empty());
    }

    #[test]
    fn a_test_without_a_row_is_found() {
        let text = table(|_| None);
        let rows = rows(&text);
        let home = Path::new(HOME).join("a.rs");
        assert_eq!(strangers(&home, TEXT, &rows).len(), 0);
        assert_eq!(strangers(&Path::new(HOME).join("b.rs"), TEXT, &rows).len(), 2);
    }
}
