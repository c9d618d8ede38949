//! Licences and sources of everything that is built: with cargo-deny where it is installed, else by the metadata.

use std::fs;

use anyhow::{Context as _, bail};

use crate::shell;

const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check() -> anyhow::Result<String> {
    if shell::is_installed("cargo-deny") {
        shell::run(shell::cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"]))?;
        return Ok("by cargo-deny".to_owned());
    }
    let text = fs::read_to_string(shell::root().join("deny.toml")).context("deny.toml")?;
    let allowed = allowed(&text).context("deny.toml has no list of allowed licences")?;
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(shell::root())
        .exec()
        .context("cargo metadata")?;
    let mut faults = Vec::new();
    for package in &metadata.packages {
        match &package.license {
            Some(licence) if is_allowed(licence, &allowed) => {}
            licence => faults.push(format!(
                "{}: the licence {licence:?} is not on the list",
                package.name
            )),
        }
        if let Some(source) = &package.source
            && source.repr != SOURCE
        {
            faults.push(format!("{} comes from {}", package.name, source.repr));
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(format!(
        "{} packages by their metadata; cargo-deny is skipped: not installed",
        metadata.packages.len()
    ))
}

/// The licences that deny.toml allows, one a line as it has them.
fn allowed(text: &str) -> Option<Vec<&str>> {
    let list = text.split("[licenses]").nth(1)?.split("allow = [").nth(1)?;
    let lines = list.split(']').next()?.lines();
    let names = lines.map(|line| line.trim().trim_end_matches(',').trim_matches('"'));
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    (!names.is_empty()).then_some(names)
}

/// Whether an expression such as `(MIT OR GPL-3.0) AND Zlib` can be satisfied by what is allowed.
fn is_allowed(licence: &str, allowed: &[&str]) -> bool {
    // Some old manifests have a slash for "or".
    let spaced = licence
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let good = any(&mut words, allowed);
    good == Some(true) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// Alternatives; `None` is no expression.
fn any(words: &mut Words<'_>, allowed: &[&str]) -> Option<bool> {
    let mut good = all(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        good |= all(words, allowed)?;
    }
    Some(good)
}

/// What has to be kept together.
fn all(words: &mut Words<'_>, allowed: &[&str]) -> Option<bool> {
    let mut good = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        good &= one(words, allowed)?;
    }
    Some(good)
}

/// One licence, perhaps with an exception, or something in parentheses.
fn one(words: &mut Words<'_>, allowed: &[&str]) -> Option<bool> {
    if words.next_if_eq(&"(").is_some() {
        let good = any(words, allowed)?;
        return words.next_if_eq(&")").map(|_| good);
    }
    let mut name = words.next()?.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        name = format!("{name} WITH {}", words.next()?);
    }
    Some(allowed.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let text = "[licenses]\nallow = [\n    \"MIT\",\n    \"0BSD\",\n]\n[bans]\nallow = [\"GPL-3.0\"]\n";
        assert_eq!(allowed(text).unwrap(), ["MIT", "0BSD"]);
        assert_eq!(allowed("[bans]\n"), None);
        assert_eq!(allowed("[licenses]\nallow = [\n]\n"), None);
    }

    #[test]
    fn licences_are_judged() {
        let allowed = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "MIT AND Unicode-3.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "GPL-3.0 OR Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR GPL-3.0) AND GPL-3.0",
            "MIT WITH LLVM-exception",
            "MIT MIT",
            "(MIT",
            "MIT OR",
            "",
        ] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }
}
