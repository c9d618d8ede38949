//! Finds doc comments that open with a relative clause without a noun.

use super::list::OPENINGS;

/// The marks of a line of a doc comment.
const MARKS: [&str; 2] = ["///", "//!"];

/// Returns the numbers and the texts of the lines that open a paragraph of a doc comment with one of [`OPENINGS`]. Headings and
/// code blocks are not prose.
pub(super) fn openings(file: &str, text: &str) -> Vec<(usize, String)> {
    if !file.ends_with(".rs") {
        return Vec::new();
    }
    let (mut found, mut is_open, mut is_code) = (Vec::new(), true, false);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        let Some(prose) = MARKS.iter().find_map(|mark| line.strip_prefix(mark)) else {
            (is_open, is_code) = (true, false);
            continue;
        };
        let prose = prose.trim();
        is_code ^= prose.starts_with("```");
        if is_open && !is_code && OPENINGS.iter().any(|word| begins_with(prose, word)) {
            found.push((number, prose.to_owned()));
        }
        is_open = prose.is_empty();
    }
    found
}

fn begins_with(prose: &str, word: &str) -> bool {
    prose.strip_prefix(word).is_some_and(|rest| rest.starts_with(' '))
}
