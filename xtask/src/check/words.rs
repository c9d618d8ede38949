//! Reports retired words, and names the replacement. The field has words for the concepts of this project. A
//! second vocabulary would be an obstacle to readers.
//!
//! [`WORDS`] defines for each retired word how it matches, because most of them are ordinary English in
//! another sense:
//! - *words* match anywhere, in prose and as parts of identifiers: `glance` also finds `glance_on` and
//!   `PreGlance`.
//! - *names* match whole identifiers in code only: outside comments and strings, and in backticks in comments
//!   and Markdown.
//!
//! A doc comment that opens with a relative clause, as in `What a wait found`, counts as a use of [`OPENING`].
//!
//! [`BASELINE`] lists the remaining uses. Their number may only fall.

mod list;
mod openings;
mod text;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use self::list::{OPENING, WORDS, Word};
use self::openings::openings;
use self::text::Token;
use super::tidy;
use crate::shell;

/// The file with the number of remaining uses of each word.
const BASELINE: &str = "xtask/src/check/words.baseline";
/// If this variable is set, the step lowers the baseline itself.
const BLESS: &str = "AIO_BLESS";
/// The command of the step, for messages.
const COMMAND: &str = "cargo xtask check --only words";
/// The beginning of a new baseline.
const HEAD: &str = "# Uses of retired words that are left; `cargo xtask check --only words` reads this file. The goal is an empty list.\n\
                    # After some are gone, AIO_BLESS=1 cargo xtask check --only words lowers the numbers. They never rise.\n";
/// Files that may contain the words: the list itself, and the history.
const EXEMPT: [&str; 2] = ["xtask/src/check/words", "CHANGELOG.md"];
/// Places where a word is the fixed name of a row or an option that scripts rely on.
const FIXED: [(&str, &str); 2] = [("bench/", "cooled"), ("BENCHMARKS.md", "cooled")];
/// The greatest number of listed uses of one word.
const LISTED: usize = 20;

/// A use of a retired word.
#[derive(Debug)]
struct Use {
    word: &'static str,
    instead: &'static str,
    file: String,
    line: usize,
    /// The text of the use.
    text: String,
}

pub(super) fn check() -> anyhow::Result<String> {
    let (mut uses, phrases) = (Vec::new(), Phrases::all());
    for file in tidy::tracked()? {
        let name = file.display().to_string();
        if is_covered(&name) {
            let text = fs::read_to_string(shell::root().join(&file)).unwrap_or_default();
            uses.extend(uses_in(&name, &text, &phrases));
        }
    }
    let path = shell::root().join(BASELINE);
    let written = fs::read_to_string(&path)
        .with_context(|| format!("{BASELINE} is missing: restore it with git checkout HEAD -- {BASELINE}"))?;
    let baseline = parse(&written)?;
    let mut faults = risen(&baseline, &uses, &changed());
    let fallen = fallen(&baseline, &uses);
    let counts = counts(&uses);
    if !fallen.is_empty() && std::env::var_os(BLESS).is_some() {
        fs::write(&path, lowered(&baseline, &counts)).context(BASELINE)?;
        println!("{BASELINE} is lowered: commit it");
    } else {
        faults.extend(fallen);
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(match uses.len() {
        0 => "no retired words".to_owned(),
        left => format!("{left} uses of {} retired words are left", counts.len()),
    })
}

fn is_covered(file: &str) -> bool {
    let is_text = Path::new(file)
        .extension()
        .is_some_and(|extension| extension == "rs" || extension == "md");
    is_text && !EXEMPT.iter().any(|exempt| file.starts_with(exempt))
}

/// Parses lines like `glance: 3`.
fn parse(text: &str) -> anyhow::Result<BTreeMap<&str, usize>> {
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let entry = line
                .rsplit_once(": ")
                .and_then(|(word, count)| Some((word, count.parse().ok()?)));
            let (word, count) = entry.with_context(|| {
                format!(
                    "{BASELINE}:{number}: cannot read {line:?}: write \"word: number\", or delete the line"
                )
            })?;
            if !WORDS.iter().chain([&OPENING]).any(|known| known.name == word) {
                bail!("{BASELINE}:{number}: {word:?} is not a retired word: delete the line");
            }
            Ok((word, count))
        })
        .collect()
}

fn counts(uses: &[Use]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for found in uses {
        *counts.entry(found.word).or_default() += 1;
    }
    counts
}

/// Returns the words with more uses than the baseline allows. Lists the places that are in `changed`, or all
/// places if that is empty.
fn risen(baseline: &BTreeMap<&str, usize>, uses: &[Use], changed: &BTreeSet<(String, usize)>) -> Vec<String> {
    let mut faults = Vec::new();
    for (word, count) in counts(uses) {
        let allowed = baseline.get(word).copied().unwrap_or(0);
        if count <= allowed {
            continue;
        }
        let of_word: Vec<&Use> = uses.iter().filter(|found| found.word == word).collect();
        let is_new = |found: &&&Use| changed.contains(&(found.file.clone(), found.line));
        let mut places: Vec<&&Use> = of_word.iter().filter(is_new).collect();
        if places.is_empty() {
            places = of_word.iter().collect();
        }
        faults.extend(places.iter().take(LISTED).map(|found| {
            format!(
                "{}:{}: {:?} is retired: write {}",
                found.file, found.line, found.text, found.instead
            )
        }));
        faults.push(format!(
            "{word:?}: {count} uses, {allowed} are allowed: replace the new ones; {} of them are listed above",
            places.len().min(LISTED)
        ));
    }
    faults
}

/// Returns the lines that were added since the last commit of the baseline; none without git.
fn changed() -> BTreeSet<(String, usize)> {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .current_dir(shell::root())
            .args(args)
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let since = git(&["log", "-1", "--format=%H", "--", BASELINE]).unwrap_or_default();
    if since.trim().is_empty() {
        return BTreeSet::new();
    }
    let diff = git(&[
        "diff",
        "--unified=0",
        "--no-color",
        "--no-ext-diff",
        "--no-prefix",
        since.trim(),
    ]);
    added(&diff.unwrap_or_default())
}

/// Parses the added lines in a diff without context.
fn added(diff: &str) -> BTreeSet<(String, usize)> {
    let (mut added, mut file) = (BTreeSet::new(), "");
    for line in diff.lines() {
        if let Some(name) = line.strip_prefix("+++ ") {
            file = name;
        } else if let Some(hunk) = line.strip_prefix("@@ ") {
            let range = hunk.split_once('+').and_then(|(_, rest)| rest.split(' ').next());
            let (begin, length) = range
                .unwrap_or_default()
                .split_once(',')
                .unwrap_or((range.unwrap_or_default(), "1"));
            let (begin, length) = (begin.parse().unwrap_or(0), length.parse().unwrap_or(0));
            added.extend((begin..begin + length).map(|line: usize| (file.to_owned(), line)));
        }
    }
    added
}

/// Returns the words with fewer uses than the baseline states.
fn fallen(baseline: &BTreeMap<&str, usize>, uses: &[Use]) -> Vec<String> {
    let counts = counts(uses);
    let fewer = baseline.iter().filter_map(|(word, &allowed)| {
        let count = counts.get(word).copied().unwrap_or(0);
        (count < allowed).then(|| {
            format!("{BASELINE}: {word:?} has {count} uses left, not {allowed}: lower the baseline with {BLESS}=1 {COMMAND}")
        })
    });
    fewer.collect()
}

/// Returns the baseline with the remaining numbers; none rises.
fn lowered(baseline: &BTreeMap<&str, usize>, counts: &BTreeMap<&'static str, usize>) -> String {
    let mut text = HEAD.to_owned();
    for (word, allowed) in baseline {
        let left = counts.get(word).map_or(0, |count| *count.min(allowed));
        if left > 0 {
            text += &format!("{word}: {left}\n");
        }
    }
    text
}

/// The sequences of words to look for, by the forms of their first word.
struct Phrases(HashMap<&'static str, Vec<(&'static Word, Phrase)>>);

/// The forms of each word of a sequence.
type Phrase = Vec<Vec<&'static str>>;

impl Phrases {
    fn all() -> Self {
        let mut by_first: HashMap<_, Vec<_>> = HashMap::new();
        for word in WORDS {
            for phrase in word.words {
                let phrase: Phrase = phrase
                    .split(' ')
                    .map(|forms| forms.split('|').collect())
                    .collect();
                for first in &phrase[0] {
                    by_first.entry(*first).or_default().push((word, phrase.clone()));
                }
            }
        }
        Self(by_first)
    }
}

fn uses_in(file: &str, text: &str, phrases: &Phrases) -> Vec<Use> {
    let mut uses = Vec::new();
    let mut add = |word: &Word, line: usize, text: String| {
        uses.push(Use {
            word: word.name,
            instead: word.instead,
            file: file.to_owned(),
            line,
            text,
        });
    };
    let tokens = text::tokens(text);
    for (at, token) in tokens.iter().enumerate() {
        for (word, phrase) in phrases.0.get(token.text.as_str()).into_iter().flatten() {
            if let Some(found) = phrase_at(phrase, &tokens[at..])
                && !is_fixed(file, &found)
            {
                add(word, token.line, found);
            }
        }
    }
    for (line, text) in openings(file, text) {
        add(&OPENING, line, text);
    }
    let is_here = |word: &&Word| word.under.iter().any(|under| file.starts_with(under));
    let here: Vec<&Word> = WORDS.iter().filter(is_here).collect();
    for name in text::names(file, text) {
        for word in &here {
            if word.names.iter().any(|pattern| is_like(name.text, pattern)) {
                add(word, name.line, name.text.to_owned());
            }
        }
    }
    uses
}

fn is_fixed(file: &str, found: &str) -> bool {
    FIXED
        .iter()
        .any(|(under, word)| file.starts_with(under) && found == *word)
}

/// Returns the phrase if it is at the beginning of the tokens, as it is written there.
fn phrase_at(phrase: &Phrase, tokens: &[Token]) -> Option<String> {
    let tokens = tokens.get(..phrase.len())?;
    let matches = phrase
        .iter()
        .zip(tokens)
        .enumerate()
        .all(|(index, (forms, token))| (index == 0 || token.follows) && forms.contains(&token.text.as_str()));
    let words = tokens.iter().map(|token| token.text.as_str());
    matches.then(|| words.collect::<Vec<_>>().join(" "))
}

/// Returns `true` if a name fits `look`, `look_*` or `*_look`. A name of more than four words is a sentence,
/// like the names of tests.
fn is_like(name: &str, pattern: &str) -> bool {
    const SENTENCE: usize = 3;
    if let Some(beginning) = pattern.strip_suffix('*') {
        return name.matches('_').count() <= SENTENCE && name.starts_with(beginning);
    }
    if let Some(end) = pattern.strip_prefix('*') {
        return name.matches('_').count() <= SENTENCE && name.ends_with(end);
    }
    name == pattern
}

#[cfg(test)]
mod tests;
