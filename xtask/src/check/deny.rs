//! Licences and sources of everything that is built: with cargo-deny where it is installed, else by the metadata.

use anyhow::{Context as _, bail};

use crate::shell;

/// What the licences of dependencies may consist of.
const LICENCES: [&str; 13] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "0BSD",
];
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check() -> anyhow::Result<String> {
    if shell::is_installed("cargo-deny") {
        shell::run(shell::cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"]))?;
        return Ok("by cargo-deny".to_owned());
    }
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(shell::root())
        .exec()
        .context("cargo metadata")?;
    let mut faults = Vec::new();
    for package in &metadata.packages {
        match &package.license {
            Some(licence) if is_allowed(licence) => {}
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
        "{} packages by their metadata; cargo-deny is not installed",
        metadata.packages.len()
    ))
}

/// Whether one of the alternatives consists of what is allowed.
fn is_allowed(licence: &str) -> bool {
    let plain = licence.replace('/', " OR ").replace(['(', ')'], "");
    plain
        .split(" OR ")
        .any(|choice| choice.split(" AND ").all(|one| LICENCES.contains(&one.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_read() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", ""] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
