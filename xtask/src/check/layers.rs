//! Compares the arrows of ARCHITECTURE.md with the manifests, both ways, and checks the ceiling of each core
//! crate.
//!
//! Dependencies for tests do not count. The crates from outside that a core crate uses are listed, too, and
//! no others are allowed.

mod ceilings;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::arrows::{Arrows, circle, parse};
use super::tidy;
use crate::glib;
use crate::shell;

pub(super) fn check() -> anyhow::Result<String> {
    let text = fs::read_to_string(shell::root().join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    let written = parse(&text)?;
    let built = built()?;
    let mut faults = differences(&written, &built);
    faults.extend(circle(&written).map(|circle| format!("a circle: {circle}")));
    let mut messages = Vec::new();
    if !faults.is_empty() {
        messages.push(format!(
            "ARCHITECTURE.md and the manifests disagree:\n  {}",
            faults.join("\n  ")
        ));
    }
    let broken = ceilings::faults(&built, &tidy::libraries()?);
    if !broken.is_empty() {
        messages.push(format!(
            "ceilings (xtask/src/check/layers/ceilings.rs):\n  {}",
            broken.join("\n  ")
        ));
    }
    if !messages.is_empty() {
        bail!("{}", messages.join("\n"));
    }
    Ok(format!(
        "{} arrows, none above a ceiling",
        written.values().map(BTreeSet::len).sum::<usize>()
    ))
}

fn built() -> anyhow::Result<Arrows> {
    let mut arrows = built_in(&[])?;
    // This workspace is separate. Its manifest can be read without GLib.
    let manifest = format!("{}/Cargo.toml", glib::WORKSPACE);
    arrows.extend(built_in(&["--manifest-path", &manifest])?);
    Ok(arrows)
}

fn built_in(workspace: &[&str]) -> anyhow::Result<Arrows> {
    let metadata = shell::metadata(&[&["--no-deps"], workspace].concat())?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let arrows = packages.iter().map(|package| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"] != "dev");
        (
            text(&package["name"]),
            normal.map(|dependency| text(&dependency["name"])).collect(),
        )
    });
    Ok(arrows.collect())
}

/// Returns the arrows that are in only one of both. A crate with `...` in its line is at the top and may use
/// anything.
fn differences(written: &Arrows, built: &Arrows) -> Vec<String> {
    let mut faults = Vec::new();
    for name in written.keys().filter(|name| !built.contains_key(*name)) {
        faults.push(format!("{name} is written and does not exist"));
    }
    for (name, uses) in built {
        let Some(allowed) = written.get(name) else {
            faults.push(format!("{name} is not written"));
            continue;
        };
        let free = allowed.contains("...");
        for used in uses.difference(allowed) {
            if !free {
                faults.push(format!("{name} -> {used} is not written"));
            }
        }
        for unused in allowed.difference(uses).filter(|unused| *unused != "...") {
            faults.push(format!("{name} -> {unused} is written and not used"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::arrows::parse_lines;

    fn arrows(lines: &str) -> Arrows {
        parse_lines(lines).unwrap()
    }

    #[test]
    fn equal_ones_have_no_differences() {
        let written = arrows("top -> low (outside)\nlow ->\ntool -> top ...");
        let built = arrows("top -> low outside\nlow ->\ntool -> top anything");
        assert_eq!(differences(&written, &built), Vec::<String>::new());
    }

    #[test]
    fn every_disagreement_is_found() {
        let written = arrows("top -> low\nlow -> (gone)\nghost ->\ntool -> ...");
        let built = arrows("top -> low other\nlow ->\nother ->\ntool -> top");
        let faults = differences(&written, &built);
        assert_eq!(
            faults,
            [
                "ghost is written and does not exist",
                "low -> gone is written and not used",
                "other is not written",
                "top -> other is not written",
            ]
        );
    }
}
