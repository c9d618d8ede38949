//! Reports circles of files: files of one crate that use each other, directly or through others.
//!
//! A file uses another if its code names something that is defined there. A re-export is no use: a path that leads through one leads
//! to the definition. The code of tests does not count. What only the compiler knows, such as the file of a method, is not seen.
//!
//! The tools that were tried do less, or more slowly: cargo-cycles 0.2 reads `use` lines only, tests included, and knows no exceptions;
//! cargo-modules 0.27 analyses one target a run with rust-analyzer, and is built from 280 crates.

mod resolve;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use self::resolve::Uses;
use super::arrows::reachable;
use super::tidy;
use crate::shell;

/// Files that may form a circle.
struct Exception {
    package: &'static str,
    files: &'static [&'static str],
    why: &'static str,
    /// It is to become smaller: each file has to be in a circle, or leave the list.
    shrinks: bool,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        package: "aio-context",
        files: &["context", "handler", "registration"],
        why: "a callback gets the context, which makes registrations, which hold handlers",
        shrinks: false,
    },
    opening(
        "aio-context",
        &[
            "adapting",
            "bh",
            "builder",
            "context",
            "found",
            "handler",
            "polling",
            "registration",
            "remote",
            "timer",
            "timers",
            "waiting",
        ],
        "being opened: the state of the loop becomes a struct of parts that do not name the context",
    ),
    opening(
        "aio-notify",
        &["inbox", "run_queue"],
        "being opened: the run queue gets the slot, not the inbox",
    ),
    opening(
        "aio-backend",
        &["conformance/mod", "conformance/promises/mod"],
        "being opened",
    ),
    opening("aio-handlers", &["masking", "registry"], "being opened"),
    opening("aio-replay", &["families", "mixes"], "being opened"),
    opening("aio-replay", &["lib", "optimum", "trace"], "being opened"),
    opening("aio-pollset", &["arrays", "ends", "set", "walk"], "being opened"),
    opening("aio-timers", &["heap", "queue"], "being opened"),
    opening("aio-reference", &["actor", "real"], "being opened"),
    opening("blockd", &["acceptor", "session"], "being opened"),
    opening(
        "blockd",
        &["disk/clear", "disk/image", "disk/ram", "disk"],
        "being opened",
    ),
    opening("blockd", &["export", "serial"], "being opened"),
    opening("aio-demo", &["main", "measure", "plan"], "being opened"),
    opening(
        "aio-policies",
        &["check", "grid", "main", "plot", "table"],
        "being opened",
    ),
    opening(
        "aio-prove",
        &["at", "coverage", "list", "mutants", "sanitizers", "valgrind"],
        "being opened",
    ),
    opening(
        "aio-bench",
        &[
            "peers/c/glib",
            "peers/c/libev",
            "peers/c/libevent",
            "peers/c/libuv",
            "peers/c/mod",
            "peers/calloop",
            "peers/event_manager",
            "peers/mio",
            "peers/mod",
            "peers/polling",
            "peers/tokio",
            "timers",
            "waiting",
        ],
        "being opened",
    ),
    opening("aio-simulation", &["deeds", "port", "world"], "being opened"),
    opening("aio-soak", &["handlers", "helpers"], "being opened"),
];

const fn opening(package: &'static str, files: &'static [&'static str], why: &'static str) -> Exception {
    Exception {
        package,
        files,
        why,
        shrinks: true,
    }
}

pub(super) fn check() -> anyhow::Result<String> {
    let (mut faults, mut in_circles, mut files) = (Vec::new(), BTreeSet::new(), 0);
    for (package, root) in roots()? {
        let load = |file: &Path| fs::read_to_string(file).with_context(|| file.display().to_string());
        let mut uses = resolve::uses(&source::read(&root, &load, &|file| file.is_file())?);
        uses.retain(|file, _| !tidy::is_test(file));
        files += uses.len();
        let directory = root.parent().unwrap_or(&root);
        for circle in circles(&uses) {
            let names = circle.iter().map(|file| short(file, directory)).collect();
            match exception(EXCEPTIONS, &package, &names) {
                Some(allowed) => println!("{package}: a circle of {} files: {}", names.len(), allowed.why),
                None => faults.push(describe(&package, &circle, &uses, directory)),
            }
            in_circles.extend(names.into_iter().map(|name| (package.clone(), name)));
        }
    }
    faults.extend(outdated(EXCEPTIONS, &in_circles));
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(format!(
        "{files} files, {} in circles that are allowed",
        in_circles.len()
    ))
}

/// The packages of the workspace, and the roots of their libraries and programs.
fn roots() -> anyhow::Result<Vec<(String, PathBuf)>> {
    let metadata = shell::metadata(&["--no-deps"])?;
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

/// Sets of files that can be reached from each other.
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

/// A file as it stands in the table: without the directory of the sources, and without `.rs`.
fn short(file: &Path, directory: &Path) -> String {
    let file = file.strip_prefix(directory).unwrap_or(file);
    file.with_extension("").display().to_string()
}

/// The first exception that allows a circle.
fn exception<'a>(all: &'a [Exception], package: &str, circle: &BTreeSet<String>) -> Option<&'a Exception> {
    all.iter().find(|exception| {
        exception.package == package && circle.iter().all(|file| exception.files.contains(&file.as_str()))
    })
}

/// The files of exceptions that are in no circle any more.
fn outdated(all: &[Exception], in_circles: &BTreeSet<(String, String)>) -> Vec<String> {
    let shrinking = all.iter().filter(|exception| exception.shrinks);
    let files = shrinking.flat_map(|exception| exception.files.iter().map(|file| (exception.package, *file)));
    files
        .filter(|(package, file)| !in_circles.contains(&((*package).to_owned(), (*file).to_owned())))
        .map(|(package, file)| {
            format!("{package}: {file} is in no circle any more: remove it from EXCEPTIONS")
        })
        .collect()
}

fn describe(package: &str, circle: &BTreeSet<PathBuf>, uses: &Uses, directory: &Path) -> String {
    let mut text =
        format!("{package}: files that use each other; move what both need into a file that uses neither:");
    for file in circle {
        for (used, lines) in uses[file].iter().filter(|(used, _)| circle.contains(*used)) {
            let lines: Vec<_> = lines.iter().take(5).map(ToString::to_string).collect();
            text += &format!(
                "\n  {} -> {} (lines {})",
                short(file, directory),
                short(used, directory),
                lines.join(", ")
            );
        }
    }
    text
}

#[cfg(test)]
mod tests;
