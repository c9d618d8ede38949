//! Checks the links between the Markdown files of the repository, and that the book contains every page and
//! every example.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aio_tools::shell;
use anyhow::{Context as _, bail};

use crate::markdown::{anchors, includes, links, parts, plain};
use crate::pages::{BOOK, Pages, SUMMARY};

/// The greatest number of lines of an example.
const LONGEST: usize = 99;

/// Runs all checks of this module. Returns the result in a line.
///
/// # Errors
/// The error lists all faults, each with its remedy.
pub(crate) fn check() -> anyhow::Result<String> {
    let pages = Pages::read()?;
    let tracked = shell::tracked(&[])?;
    let mut texts = BTreeMap::new();
    for file in tracked.iter().filter(|file| is_markdown(file)) {
        let text = fs::read_to_string(shell::root().join(file));
        texts.insert(
            file.clone(),
            text.with_context(|| format!("cannot read {}", file.display()))?,
        );
    }
    let (count, mut faults) = broken(&texts, &|path| exists(&tracked, path));
    for (file, text) in &texts {
        faults.extend(absent(file, text));
        if pages.chapter(file).is_some() {
            let inside = links(text)
                .into_iter()
                .filter(|link| !link.is_outside() && !link.to.starts_with('#'));
            faults.extend(inside.filter_map(|link| Some(pages.rewrite(file, &link.to).err()?.to_string())));
        }
    }
    for file in tracked.iter().filter(|file| is_example(file)) {
        let text = fs::read_to_string(shell::root().join(file));
        faults.extend(long(
            file,
            &text.with_context(|| format!("cannot read {}", file.display()))?,
        ));
    }
    faults.extend(unlisted(&tracked, &|path| pages.chapter(path).is_some()));
    faults.extend(unnamed(
        &tracked,
        texts.get(Path::new("README.md")).map_or("", String::as_str),
    ));
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(format!(
        "{count} links in {} Markdown files, {} chapters",
        texts.len(),
        pages.files().count()
    ))
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|is| is == "md")
}

/// Returns a line for each include of a page whose file or part does not exist. mdBook would leave it out
/// silently.
fn absent(file: &Path, text: &str) -> Vec<String> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let missing = includes(text).filter(|(included, part)| {
        let program = fs::read_to_string(shell::root().join(folder).join(included)).unwrap_or_default();
        let mark = part.map(|part| format!("ANCHOR: {part}"));
        let has_part = |mark: &String| program.lines().any(|line| line.contains(mark.as_str()));
        program.is_empty() || mark.is_some_and(|mark| !has_part(&mark))
    });
    missing
        .map(|(included, part)| {
            let part = part.unwrap_or("anything");
            format!(
                "{} includes {part} of {included}, which lacks it: add // ANCHOR: {part}",
                file.display()
            )
        })
        .collect()
}

/// Returns `true` if the repository has this file or directory.
fn exists(tracked: &[PathBuf], path: &Path) -> bool {
    path == Path::new("") || tracked.iter().any(|file| file.starts_with(path))
}

/// Returns the number of links inside the repository, and the faults of these links.
fn broken(texts: &BTreeMap<PathBuf, String>, exists: &dyn Fn(&Path) -> bool) -> (usize, Vec<String>) {
    let (mut count, mut faults) = (0, Vec::new());
    for (file, text) in texts {
        for link in links(text).into_iter().filter(|link| !link.is_outside()) {
            count += 1;
            let line = text[..link.at.start].lines().count().max(1);
            let (path, anchor) = parts(&link.to);
            let target = match path {
                "" => file.clone(),
                path => plain(&file.parent().unwrap_or(Path::new("")).join(path)),
            };
            let place = format!("{}:{line}: the link {}", file.display(), link.to);
            if !exists(&target) {
                faults.push(format!(
                    "{place} names {}, which is not in the repository: correct the link, or add the file to git",
                    target.display()
                ));
            } else if let (Some(anchor), Some(text)) = (anchor, texts.get(&target)) {
                let known = anchors(text);
                if !known.iter().any(|known| known == anchor) {
                    let known = known.join(", ");
                    faults.push(format!(
                        "{place} names an anchor that {} lacks; it has {known}",
                        target.display()
                    ));
                }
            }
        }
    }
    (count, faults)
}

/// Returns the pages of `docs/` and the examples of the libraries that are missing from the list of chapters.
fn unlisted(tracked: &[PathBuf], is_chapter: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let wanted = tracked.iter().filter(|file| {
        let is_page = file.starts_with(BOOK) && is_markdown(file) && file.as_path() != Path::new(SUMMARY);
        is_page || is_example(file)
    });
    let missing = wanted.filter(|file| !is_chapter(file));
    missing
        .map(|file| format!("the book lacks {}: list it in {SUMMARY}", file.display()))
        .collect()
}

/// Returns the examples that the README does not link to.
fn unnamed(tracked: &[PathBuf], readme: &str) -> Vec<String> {
    let named: Vec<PathBuf> = links(readme).into_iter().map(|link| link.to.into()).collect();
    let missing = tracked
        .iter()
        .filter(|file| is_program(file) && !named.contains(file));
    missing
        .map(|file| format!("README.md lacks {}: list it under \"Examples\"", file.display()))
        .collect()
}

/// Returns the fault of an example that is too long.
fn long(file: &Path, text: &str) -> Option<String> {
    let (lines, file) = (text.lines().count(), file.display());
    (lines > LONGEST).then(|| format!("{file} has {lines} lines: shorten or split it, to {LONGEST} at most"))
}

/// Returns `true` if a file belongs to a program that shows how to use a crate.
fn is_example(file: &Path) -> bool {
    let mut folders = file.parent().into_iter().flat_map(Path::components).skip(1);
    file.extension().is_some_and(|is| is == "rs") && folders.any(|folder| folder.as_os_str() == "examples")
}

/// Returns `true` if a file is a program of its own, not a part of another one.
fn is_program(file: &Path) -> bool {
    let folder = file.parent().and_then(Path::file_name);
    is_example(file) && (folder.is_some_and(|name| name == "examples") || file.ends_with("main.rs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pages: &[(&str, &str)]) -> BTreeMap<PathBuf, String> {
        pages
            .iter()
            .map(|(name, text)| ((*name).into(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn links_to_files_and_anchors_are_checked() {
        let pages = texts(&[
            (
                "README.md",
                "# A\n[b](docs/b.md) [c](docs/b.md#two-words) [d](#a) [e](https://e) [f](src)\n",
            ),
            ("docs/b.md", "## Two words\n[up](../README.md#a)\n"),
        ]);
        let exists = |path: &Path| pages.contains_key(path) || path == Path::new("src");
        assert_eq!(broken(&pages, &exists), (5, Vec::new()));
        let wrong = texts(&[
            ("README.md", "# A\n\n[b](docs/c.md) [c](#b)\n"),
            ("docs/b.md", "[up](../README.md#c)\n"),
        ]);
        let (count, faults) = broken(&wrong, &|path| wrong.contains_key(path));
        assert_eq!((count, faults.len()), (3, 3), "{faults:?}");
        assert!(
            faults[0].starts_with("README.md:2: the link docs/c.md names docs/c.md"),
            "{faults:?}"
        );
        assert!(faults[1].ends_with("README.md lacks; it has a"), "{faults:?}");
        assert!(faults[2].starts_with("docs/b.md:1: "), "{faults:?}");
    }

    #[test]
    fn includes_of_what_no_program_has_are_found() {
        let page = Path::new("docs/x.md");
        let right = "{{#include ../aio-context/examples/first_steps.rs:run}} {{#include ../Cargo.toml}}";
        assert_eq!(absent(page, right), Vec::<String>::new());
        let wrong = "{{#include ../aio-context/examples/first_steps.rs:walk}} {{#include ../Cargo.tom}}";
        let faults = absent(page, wrong);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].contains("includes walk of ../aio-context"),
            "{faults:?}"
        );
    }

    #[test]
    fn pages_and_examples_that_are_left_out_are_found() {
        let tracked: Vec<PathBuf> = [
            "docs/a.md",
            "docs/SUMMARY.md",
            "aio-x/examples/y.rs",
            "aio-x/src/lib.rs",
            "TESTING.md",
        ]
        .iter()
        .map(PathBuf::from)
        .collect();
        assert_eq!(unlisted(&tracked, &|_| true), Vec::<String>::new());
        assert_eq!(
            unlisted(&tracked, &|_| false),
            [
                "the book lacks docs/a.md: list it in docs/SUMMARY.md",
                "the book lacks aio-x/examples/y.rs: list it in docs/SUMMARY.md",
            ]
        );
        assert_eq!(
            unnamed(&tracked, "[y](aio-x/examples/y.rs)"),
            Vec::<String>::new()
        );
        assert_eq!(unnamed(&tracked, "`aio-x/examples/y.rs`").len(), 1);
    }

    #[test]
    fn examples_and_their_parts_are_distinguished() {
        for (file, expected) in [
            ("aio-x/examples/y.rs", (true, true)),
            ("aio-x/examples/z/main.rs", (true, true)),
            ("aio-x/examples/z/part.rs", (true, false)),
            ("examples/x/src/lib.rs", (false, false)),
            ("examples/x/examples/y.rs", (true, true)),
            ("aio-x/examples/y.c", (false, false)),
        ] {
            let file = Path::new(file);
            assert_eq!(
                (is_example(file), is_program(file)),
                expected,
                "{}",
                file.display()
            );
        }
        let lines = "line\n".repeat(LONGEST);
        assert_eq!(long(Path::new("y.rs"), &lines), None);
        assert!(long(Path::new("y.rs"), &(lines + "one more")).is_some());
    }

    #[test]
    fn a_directory_exists_if_a_file_in_it_does() {
        let tracked = [PathBuf::from("a/b/c.rs")];
        for (path, expected) in [
            ("a/b", true),
            ("a/b/c.rs", true),
            ("", true),
            ("a/c", false),
            ("a/b/c", false),
        ] {
            assert_eq!(exists(&tracked, Path::new(path)), expected, "{path}");
        }
    }
}
