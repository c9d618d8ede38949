//! Arrows between names, as in ARCHITECTURE.md, and the names that can be reached by them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};

/// The dependencies of each crate.
pub(super) type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The language tag of the block.
const TAG: &str = "```arrows";

/// Parses lines like `a -> b c`; `a ->` has no arrow. Names in parentheses are crates from outside.
pub(super) fn parse(text: &str) -> anyhow::Result<Arrows> {
    let block = text
        .split(TAG)
        .nth(1)
        .context("ARCHITECTURE.md has no block of arrows")?;
    parse_lines(block.split("```").next().unwrap_or(block))
}

pub(super) fn parse_lines(block: &str) -> anyhow::Result<Arrows> {
    let mut arrows = Arrows::new();
    for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (from, to) = line
            .split_once("->")
            .with_context(|| format!("no arrow in {line:?}"))?;
        let names = to
            .split_whitespace()
            .map(|name| name.trim_matches(['(', ')']).to_owned());
        let before = arrows.insert(from.trim().to_owned(), names.collect());
        ensure!(before.is_none(), "{} has two lines", from.trim());
    }
    Ok(arrows)
}

/// Returns a crate that can be reached from itself.
pub(super) fn circle(arrows: &Arrows) -> Option<String> {
    let mut starts = arrows.keys();
    starts
        .find(|start| reachable(arrows, *start).contains(*start))
        .cloned()
}

/// Returns the names that can be reached from `start` in any number of steps.
pub(super) fn reachable<'a, T: Ord>(arrows: &'a BTreeMap<T, BTreeSet<T>>, start: &'a T) -> BTreeSet<&'a T> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![start]);
    while let Some(name) = next.pop() {
        let Some(to) = arrows.get(name) else { continue };
        next.extend(to.iter().filter(|to| seen.insert(*to)));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found() {
        assert_eq!(
            circle(&parse_lines("a -> b\nb -> c\nc -> b").unwrap()).as_deref(),
            Some("b")
        );
        assert_eq!(circle(&parse_lines("a -> b c\nb -> c\nc ->").unwrap()), None);
    }

    #[test]
    fn malformed_blocks_are_refused() {
        assert!(parse("no block").is_err());
        assert!(parse("```arrows\na b\n```").is_err());
        assert!(parse("```arrows\na -> b\na -> c\n```").is_err());
    }
}
