//! Compares the tests with `docs/rules.md`. Every rule that the page calls kept has a test, and every id in a
//! test's name or in a comment is on the page.
//!
//! `fn r6_replacing_keeps_the_hooks_balanced` proves R6, `fn a5_t1_both` proves A5 and T1.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::tidy;
use crate::shell;

/// The page of the rules.
const PAGE: &str = "docs/rules.md";
/// The section of the page with ids that are no rules.
const OTHERS: &str = "## Other ids in test names";
/// The tests of this step. The ids in them are examples.
const OWN_TESTS: &str = "xtask/src/check";
/// First parts of function names that look like an id: types and percentiles.
const WORDS: [&str; 12] = [
    "u8", "u16", "u32", "u64", "i16", "i32", "i64", "f32", "f64", "p50", "p99", "p999",
];

/// An id: its letter in upper case, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id(char, u32);

impl Id {
    /// Parses an id such as `R6`. Returns `None` for any other text.
    fn parse(text: &str) -> Option<Self> {
        let letter = text.chars().next().filter(char::is_ascii_uppercase)?;
        let digits = &text[1..];
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number
            .then(|| digits.parse().ok())?
            .map(|number| Self(letter, number))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, self.1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Kept,
    InPart,
    NotYet,
}

#[derive(Debug)]
struct Rule {
    line: usize,
    status: Status,
    /// Set if a paragraph names the missing parts.
    names_missing: bool,
}

/// The content of the page.
#[derive(Debug, Default)]
struct Page {
    rules: BTreeMap<Id, Rule>,
    /// For each letter, the highest number of ids that are no rules.
    others: BTreeMap<char, u32>,
    faults: Vec<String>,
}

/// An id in a test's name or in a comment.
#[derive(Debug)]
struct Use {
    id: Id,
    place: String,
    /// `true` in a test's name, which proves a rule; `false` for a citation.
    is_test: bool,
}

pub(super) fn check() -> anyhow::Result<String> {
    let page = Page::parse(&fs::read_to_string(shell::root().join(PAGE)).context(PAGE)?);
    let mut uses = Vec::new();
    for file in tidy::tracked()? {
        let is_text = |extension: &std::ffi::OsStr| extension == "rs" || extension == "md";
        if file.starts_with(OWN_TESTS) || !file.extension().is_some_and(is_text) {
            continue;
        }
        let text = fs::read_to_string(shell::root().join(&file)).unwrap_or_default();
        uses.extend(citations(&file, &text));
        if file.extension().is_some_and(|extension| extension == "rs") {
            uses.extend(tests(&file, &text));
        }
    }
    let faults = page.faults(&uses);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    let count = |status| page.rules.values().filter(|rule| rule.status == status).count();
    Ok(format!(
        "{} rules, each with a test, {} of them kept in part; {} not yet",
        count(Status::Kept) + count(Status::InPart),
        count(Status::InPart),
        count(Status::NotYet)
    ))
}

impl Page {
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut section = "";
        let mut last = None;
        for (line, text) in (1..).zip(text.lines()) {
            if text.starts_with("## ") {
                section = text;
                last = None;
            } else if let Some(heading) = text.strip_prefix("### ") {
                last = page.heading(heading, line);
            } else if text.starts_with("*Not yet:*") {
                if let Some(rule) = last.and_then(|id| page.rules.get_mut(&id)) {
                    rule.names_missing = true;
                }
            } else if section == OTHERS {
                page.others.extend(other(text));
            }
        }
        for (id, rule) in &page.rules {
            if rule.status == Status::InPart && !rule.names_missing {
                page.faults.push(format!(
                    "{PAGE}:{}: {id} is kept in part: add a paragraph that begins with \"*Not yet:*\" and names the missing parts",
                    rule.line
                ));
            }
        }
        page
    }

    /// Parses `R6: title` with ` (in part)` or ` (not yet)` at its end.
    fn heading(&mut self, heading: &str, line: usize) -> Option<Id> {
        let id = heading.split_once(": ").and_then(|(id, _)| Id::parse(id));
        let Some(id) = id else {
            self.faults.push(format!(
                "{PAGE}:{line}: cannot read the heading {heading:?}: write \"### R6: title\", with \" (in part)\" or \" (not yet)\" at its \
                 end where the code does not keep the rule"
            ));
            return None;
        };
        let status = if heading.ends_with(" (not yet)") {
            Status::NotYet
        } else if heading.ends_with(" (in part)") {
            Status::InPart
        } else {
            Status::Kept
        };
        let rule = Rule {
            line,
            status,
            names_missing: false,
        };
        if let Some(before) = self.rules.insert(id, rule) {
            self.faults.push(format!(
                "{PAGE}:{line}: {id} stands in line {} already: give one of them another number",
                before.line
            ));
        }
        Some(id)
    }

    fn faults(&self, uses: &[Use]) -> Vec<String> {
        let mut faults = self.faults.clone();
        for Use { id, place, is_test } in uses {
            match self.rules.get(id) {
                Some(rule) if *is_test && rule.status == Status::NotYet => faults.push(format!(
                    "{place}: a test for {id}, which {PAGE}:{} marks \"(not yet)\": remove the mark, or write \"(in part)\" and name what \
                     is missing",
                    rule.line
                )),
                Some(_) => {}
                None if self.is_other(*id) => {}
                None => faults.push(format!(
                    "{place}: there is no rule {id}: correct the id, or add the rule to {PAGE}"
                )),
            }
        }
        let proven: BTreeSet<Id> = uses
            .iter()
            .filter(|use_| use_.is_test)
            .map(|use_| use_.id)
            .collect();
        for (id, rule) in &self.rules {
            if rule.status != Status::NotYet && !proven.contains(id) {
                faults.push(format!(
                    "{PAGE}:{}: no test names {id}: add one, as in fn {}_what_it_shows, or mark the rule \"(not yet)\"",
                    rule.line,
                    id.to_string().to_lowercase()
                ));
            }
        }
        faults
    }

    fn is_other(&self, Id(letter, number): Id) -> bool {
        let highest = self.others.get(&letter);
        highest.is_some_and(|highest| (1..=*highest).contains(&number))
    }
}

/// Parses `| C | 34 | ...` as the ids C1 to C34.
fn other(row: &str) -> Option<(char, u32)> {
    let mut cells = row.strip_prefix('|')?.split('|').map(str::trim);
    let mut letter = cells.next()?.chars();
    let (Some(letter), None) = (letter.next(), letter.next()) else {
        return None;
    };
    Some((letter, cells.next()?.parse().ok()?))
}

/// Returns the lines of a file that are tests, with their numbers.
fn test_lines<'a>(file: &Path, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let mut inside = tidy::is_test(file);
    (1..).zip(text.lines()).filter(move |(_, line)| {
        inside |= line.contains("#[cfg(test)]") || line.contains("#[cfg(all(test");
        inside
    })
}

/// Returns the ids in the names of tests: of functions, and of the lines like `n1_name => ...` from which a
/// macro makes functions.
fn tests(file: &Path, text: &str) -> Vec<Use> {
    let mut uses = Vec::new();
    for (number, line) in test_lines(file, text) {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        let by_macro = line.split_once(" =>").map(|(name, _)| name);
        let functions = line.match_indices("fn ").map(|(at, _)| &line[at..]);
        let names = functions
            .filter_map(|function| function.split([' ', '(', '<']).nth(1))
            .chain(by_macro);
        uses.extend(names.flat_map(ids_in).map(|id| Use {
            id,
            place: format!("{}:{number}", file.display()),
            is_test: true,
        }));
    }
    uses
}

/// Returns the ids at the beginning of a name, also after the number of a case: `case_16_a9_nested`.
fn ids_in(name: &str) -> Vec<Id> {
    let mut parts = name.split('_').peekable();
    if parts.next_if_eq(&"case").is_some() {
        parts.next();
    }
    let is_id =
        |part: &str| part.starts_with(|letter: char| letter.is_ascii_lowercase()) && !WORDS.contains(&part);
    parts
        .map_while(|part| is_id(part).then(|| Id::parse(&part.to_ascii_uppercase()))?)
        .collect()
}

/// Returns the ids in texts like `rule D5`, `rules R2, R3`, `rules H2-H4 and H8`.
fn citations(file: &Path, text: &str) -> Vec<Use> {
    let mut uses = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let rests = ["rule ", "rules "].into_iter();
        let rests = rests.flat_map(|word| {
            line.match_indices(word)
                .map(move |(at, _)| &line[at + word.len()..])
        });
        for rest in rests {
            let words = rest
                .split([' ', '-', ','])
                .filter(|word| !matches!(*word, "" | "and" | "or"));
            let ids = words
                .map_while(|word| Id::parse(word.trim_end_matches(['.', ')', ':', ';', '"', '`', '\''])));
            uses.extend(ids.map(|id| Use {
                id,
                place: format!("{}:{number}", file.display()),
                is_test: false,
            }));
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "## R: Registry\n\n### R1: One\n\nText.\n\n### R2: Two (in part)\n\nText.\n\n*Not yet:* more.\n\n\
                        ### R3: Three (not yet)\n\n## Other ids in test names\n\n| letter | up to | what |\n|---|---|---|\n| C | 34 | cases |\n";

    /// Returns the faults that the step reports about a page and a file of tests.
    fn faults(page: &str, file: &str, text: &str) -> Vec<String> {
        let file = Path::new(file);
        let mut uses = super::tests(file, text);
        uses.extend(citations(file, text));
        Page::parse(page).faults(&uses)
    }

    #[track_caller]
    fn one_fault(faults: &[String], pieces: &[&str]) {
        assert_eq!(faults.len(), 1, "{faults:#?}");
        for piece in pieces {
            assert!(faults[0].contains(piece), "{piece:?} is not in {:?}", faults[0]);
        }
    }

    const PROOFS: &str = "fn r1_it_holds() {}\nfn r2_so_far() {}\n";

    fn with(more: &str) -> Vec<String> {
        faults(GOOD, "a/tests/it/b.rs", &format!("{PROOFS}{more}"))
    }

    #[test]
    fn a_good_page_with_its_tests_passes() {
        assert_eq!(
            with("fn c34_a_case() {}\nfn u32_at() {} // rule R3"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn tests_of_unknown_rules_are_reported() {
        one_fault(
            &with("fn r99_what() {}"),
            &["a/tests/it/b.rs:3: ", "no rule R99", PAGE],
        );
        one_fault(&with("    fn x9_what() {}"), &["b.rs:3: ", "no rule X9"]);
        one_fault(
            &with("fn case_16_d1_what(bench: Bench) {}"),
            &["b.rs:3: ", "no rule D1"],
        );
        one_fault(&with("    n1_what => model;"), &["b.rs:3: ", "no rule N1"]);
        one_fault(&with("fn c35_what() {}"), &["no rule C35"]);
        one_fault(&with("fn r1_r4_what() {}"), &["no rule R4"]);
        one_fault(&with("fn r0_what() {}"), &["no rule R0"]);
    }

    #[test]
    fn citations_of_unknown_rules_are_reported() {
        one_fault(
            &with("//! What it does (rule D5)"),
            &["a/tests/it/b.rs:3: ", "no rule D5"],
        );
        one_fault(&with("// rules R1, R2 and R7."), &["no rule R7"]);
        one_fault(&with("// rules R3-R8)"), &["no rule R8"]);
        assert_eq!(
            with("// a rule Of thumb, the rules A and B, rule R1's text"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn rules_without_a_test_are_reported() {
        let text = "fn r1_it_holds() {}\n// fn r2_in_a_comment() {}";
        let found = faults(GOOD, "a/src/tests.rs", text);
        one_fault(&found, &["docs/rules.md:7: ", "no test names R2", "fn r2_"]);
        let code = faults(
            GOOD,
            "a/src/b.rs",
            &format!("fn r1_code() {{}}\n#[cfg(test)]\nmod tests {{\n{PROOFS}"),
        );
        assert_eq!(code, Vec::<String>::new());
        assert_eq!(faults(GOOD, "a/src/b.rs", PROOFS).len(), 2, "code proves nothing");
    }

    #[test]
    fn a_test_of_a_rule_that_is_not_kept_yet_asks_for_its_mark() {
        one_fault(
            &with("fn r3_it_does() {}"),
            &["a/tests/it/b.rs:3: ", "docs/rules.md:13", "remove the mark"],
        );
    }

    #[test]
    fn pages_that_cannot_be_read_are_reported() {
        let page = |more: &str| faults(&format!("{GOOD}{more}"), "a/tests/it/b.rs", PROOFS);
        one_fault(
            &page("### R4 no colon"),
            &["docs/rules.md:20: ", "cannot read the heading"],
        );
        one_fault(&page("### Text: more"), &["cannot read the heading"]);
        one_fault(
            &page("### R3: Again (not yet)"),
            &["docs/rules.md:20: ", "R3 stands in line 13"],
        );
        let nothing_named = page("### R4: Four (in part)\n");
        assert_eq!(nothing_named.len(), 2, "no test either: {nothing_named:#?}");
        assert!(nothing_named[0].contains("docs/rules.md:20: R4 is kept in part"));
    }

    #[test]
    fn ids_are_read_from_names() {
        let ids = |name: &str| {
            ids_in(name)
                .iter()
                .map(Id::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(ids("a5_t1_both"), "A5 T1");
        assert_eq!(ids("r12_one"), "R12");
        assert_eq!(ids("case_16_a9_nested"), "A9");
        assert_eq!(ids("other_r1"), "");
        assert_eq!(ids("u32_at"), "");
        assert_eq!(ids("p99_added_ns"), "");
        assert_eq!(ids("ärger_1"), "");
    }
}
