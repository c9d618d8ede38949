//! Reports circles of files: files of one crate that use each other, directly or through others.
//!
//! A file uses another if its code names something that is defined there. A re-export is no use: a path
//! through a re-export leads to the definition. The code of tests does not count. Uses that only the compiler
//! can resolve, such as the file of a method, are not found.
//!
//! Existing tools do less, or are slower: cargo-cycles 0.2 reads `use` lines only, tests included, and
//! supports no exceptions; cargo-modules 0.27 analyses one target a run with rust-analyzer, and is built from
//! 280 crates.

mod resolve;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use self::resolve::Uses;
use super::arrows::reachable;
use super::tidy;
use crate::{glib, shell};

/// A package, files of it that may form a circle, and the reason.
type Allowed = (&'static str, &'static [&'static str], &'static str);
/// The circle that the language of callbacks makes unavoidable.
const ALLOWED: &[Allowed] = &[(
    "aio-context",
    &["context", "handler", "registration", "timer"],
    "a callback gets the context and its timer; the context makes registrations and timers, which hold handlers and callbacks",
)];

/// A package whose circles are being opened, the number of files in them, and the way to open them.
type Opening = (&'static str, usize, &'static str);
/// These numbers may only fall. A package leaves the list with its last circle.
const OPENING: &[Opening] = &[];

/// A set of files that use each other, and the text to print about it.
struct Circle {
    files: BTreeSet<String>,
    text: String,
}

pub(super) fn check() -> anyhow::Result<String> {
    let (mut found, mut files) = (BTreeMap::<String, Vec<Circle>>::new(), 0);
    for (package, root) in roots()? {
        let load = |file: &Path| fs::read_to_string(file).with_context(|| file.display().to_string());
        let mut uses = resolve::uses(&source::read(&root, &load, &|file| file.is_file())?);
        uses.retain(|file, _| !tidy::is_test(file));
        files += uses.len();
        let directory = root.parent().unwrap_or(&root);
        let circles = circles(&uses);
        let circles = circles.iter().map(|circle| describe(circle, &uses, directory));
        found.entry(package).or_default().extend(circles);
    }
    let faults: Vec<_> = found
        .iter()
        .flat_map(|(package, circles)| faults(package, circles, ALLOWED, OPENING))
        .collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    for (package, files, how) in OPENING {
        println!("{package}: {files} files in circles that are being opened: {how}");
    }
    Ok(format!(
        "{files} files; {} packages with circles that are being opened",
        OPENING.len()
    ))
}

/// Returns the faults of a package's circles.
fn faults(package: &str, circles: &[Circle], allowed: &[Allowed], opening: &[Opening]) -> Vec<String> {
    let is_allowed = |circle: &Circle| {
        let mut sets = allowed.iter().filter(|allowed| allowed.0 == package);
        sets.any(|(_, files, _)| circle.files.iter().all(|file| files.contains(&file.as_str())))
    };
    let circles: Vec<_> = circles.iter().filter(|circle| !is_allowed(circle)).collect();
    let count: usize = circles.iter().map(|circle| circle.files.len()).sum();
    let opening = opening.iter().find(|opening| opening.0 == package);
    let limit = opening.map_or(0, |opening| opening.1);
    if count < limit {
        let remedy = if count == 0 {
            "remove it from".to_owned()
        } else {
            format!("write {count} into")
        };
        return vec![format!(
            "{package}: {count} files are in circles, not {limit}: {remedy} OPENING"
        )];
    }
    let texts = circles.iter().filter(|_| count > limit).map(|circle| {
        format!(
            "{package}: these files use each other; move the shared parts into a file that uses neither:\n{}",
            circle.text
        )
    });
    texts.collect()
}

/// Returns the packages of the workspace and of that of `aio-glib`, and the roots of their libraries and
/// programs.
fn roots() -> anyhow::Result<Vec<(String, PathBuf)>> {
    let glib = format!("{}/Cargo.toml", glib::WORKSPACE);
    let mut roots = roots_in(&shell::metadata(&["--no-deps"])?)?;
    roots.extend(roots_in(&shell::metadata(&[
        "--no-deps",
        "--manifest-path",
        &glib,
    ])?)?);
    Ok(roots)
}

fn roots_in(metadata: &serde_json::Value) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let packages = metadata["packages"].as_array();
    let packages = packages.context("cargo metadata lists no packages")?;
    let mut roots = Vec::new();
    for package in packages {
        for target in package["targets"].as_array().into_iter().flatten() {
            let kinds = target["kind"].as_array().into_iter().flatten();
            if kinds
                .filter_map(|kind| kind.as_str())
                .any(|kind| matches!(kind, "lib" | "bin"))
            {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                roots.push((text(&package["name"]), text(&target["src_path"]).into()));
            }
        }
    }
    Ok(roots)
}

/// Returns the sets of files that can be reached from each other.
fn circles(uses: &Uses) -> Vec<BTreeSet<PathBuf>> {
    let arrows = uses.iter().map(|(file, used)| {
        let used = used.keys().filter(|used| uses.contains_key(*used));
        (file.clone(), used.cloned().collect())
    });
    let arrows: BTreeMap<PathBuf, BTreeSet<PathBuf>> = arrows.collect();
    let reached: BTreeMap<_, _> = arrows
        .keys()
        .map(|file| (file, reachable(&arrows, file)))
        .collect();
    let mut circles = BTreeSet::new();
    for (file, to) in &reached {
        let circle: BTreeSet<_> = to
            .iter()
            .filter(|other| reached[*other].contains(*file))
            .cloned()
            .cloned()
            .collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// Returns the name of a file for messages: without the directory of the sources, and without `.rs`.
fn short(file: &Path, directory: &Path) -> String {
    let file = file.strip_prefix(directory).unwrap_or(file);
    file.with_extension("").display().to_string()
}

fn describe(circle: &BTreeSet<PathBuf>, uses: &Uses, directory: &Path) -> Circle {
    let mut arrows = Vec::new();
    for file in circle {
        for (used, lines) in uses[file].iter().filter(|(used, _)| circle.contains(*used)) {
            let lines: Vec<_> = lines.iter().take(5).map(ToString::to_string).collect();
            let [from, to] = [file, used].map(|file| short(file, directory));
            arrows.push(format!("  {from} -> {to} (lines {})", lines.join(", ")));
        }
    }
    Circle {
        files: circle.iter().map(|file| short(file, directory)).collect(),
        text: arrows.join("\n"),
    }
}

#[cfg(test)]
mod tests;
