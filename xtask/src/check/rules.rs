//! Every rule of behaviour is named by a test: `fn r6_replacing_keeps_the_hooks_balanced` is where R6 is proven.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::bail;

use super::tidy;
use crate::shell;

/// By letter: registry, dispatch, polling, backends, bottom halves, notification, time, foreign loops, waiting.
const RULES: [(&str, u32); 9] = [
    ("r", 12),
    ("d", 9),
    ("a", 10),
    ("b", 7),
    ("h", 9),
    ("n", 5),
    ("t", 5),
    ("g", 2),
    ("w", 2),
];

pub(super) fn check() -> anyhow::Result<String> {
    let mut named = BTreeSet::new();
    for file in tidy::tracked()? {
        // The tests of this very check are about names, too.
        if !file.starts_with("xtask") && file.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(shell::root().join(&file)).unwrap_or_default();
            named.extend(rules_in(tests_of(&file, &text)));
        }
    }
    let wanted = wanted();
    let missing: Vec<&String> = wanted.iter().filter(|rule| !named.contains(*rule)).collect();
    if !missing.is_empty() {
        bail!("rules that no test names: {missing:?}");
    }
    Ok(format!("{} rules, each named by a test", wanted.len()))
}

fn wanted() -> Vec<String> {
    let all = RULES
        .iter()
        .flat_map(|(letter, last)| (1..=*last).map(move |number| format!("{letter}{number}")));
    all.collect()
}

/// The part of a file that is tests.
fn tests_of<'a>(file: &Path, text: &'a str) -> &'a str {
    if tidy::is_test(file) {
        return text;
    }
    let unit_tests = text.find("#[cfg(test)]").or_else(|| text.find("#[cfg(all(test"));
    unit_tests.map_or("", |start| &text[start..])
}

/// The rules in the names of functions: `fn a5_t1_what` names A5 and T1.
fn rules_in(text: &str) -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for name in text.split("fn ").skip(1) {
        let name = name
            .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .next()
            .unwrap_or_default();
        rules.extend(
            name.split('_')
                .take_while(|part| is_rule(part))
                .map(str::to_owned),
        );
    }
    rules
}

fn is_rule(part: &str) -> bool {
    let digits = part.get(1..).unwrap_or_default();
    part.starts_with(|letter: char| letter.is_ascii_lowercase())
        && !digits.is_empty()
        && digits.chars().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_names() {
        let text = "fn a5_t1_both() {}\n    fn r12_one(x: u8) {}\nfn other_r1() {} // fn_a9";
        assert_eq!(
            rules_in(text).into_iter().collect::<Vec<_>>(),
            ["a5", "r12", "t1"]
        );
    }

    #[test]
    fn only_tests_count() {
        let text = "fn r1_code() {}\n#[cfg(test)]\nmod tests { fn r2_test() {} }";
        let named = |file: &str| {
            rules_in(tests_of(Path::new(file), text))
                .into_iter()
                .collect::<Vec<_>>()
        };
        assert_eq!(named("aio-handlers/src/slots.rs"), ["r2"]);
        assert_eq!(named("aio-handlers/tests/it/main.rs"), ["r1", "r2"]);
        assert_eq!(
            rules_in(tests_of(Path::new("a/src/b.rs"), "fn r1_code() {}")).len(),
            0
        );
    }
}
