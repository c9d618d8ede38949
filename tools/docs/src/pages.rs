//! The chapters of the book, and the places of the repository's files in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aio_tools::shell;
use anyhow::{Context as _, bail};

use crate::markdown::{links, parts, plain};

/// The directory of the book.
pub(crate) const BOOK: &str = "docs";
/// The list of its chapters.
pub(crate) const SUMMARY: &str = "docs/SUMMARY.md";

/// The places of the repository's files in the book. All paths are relative to the repository or to the book.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// The path of each chapter in the book, by its file.
    chapters: BTreeMap<PathBuf, PathBuf>,
    /// The names of the crates, by the directories of the libraries.
    libraries: BTreeMap<PathBuf, String>,
}

impl Pages {
    /// Reads the list of chapters and the manifests.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let summary = fs::read_to_string(shell::root().join(SUMMARY))
            .with_context(|| format!("cannot read {SUMMARY}"))?;
        let mut libraries = BTreeMap::new();
        for apart in [
            &["--no-deps"][..],
            &["--no-deps", "--manifest-path", "aio-glib/Cargo.toml"],
        ] {
            let metadata = shell::metadata(apart)?;
            let packages = metadata["packages"].as_array();
            for package in packages
                .into_iter()
                .flatten()
                .filter(|it| it["publish"].is_null())
            {
                let name = package["name"]
                    .as_str()
                    .context("cargo metadata names no package")?;
                libraries.insert(name.into(), name.replace('-', "_"));
            }
        }
        Ok(Self::new(&summary, libraries))
    }

    fn new(summary: &str, libraries: BTreeMap<PathBuf, String>) -> Self {
        let files = links(summary).into_iter().map(|link| file(&link.to));
        let chapters = files.map(|file| (file.clone(), chapter_path(&file)));
        Self {
            chapters: chapters.collect(),
            libraries,
        }
    }

    /// Returns the files of the chapters.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.chapters.keys().map(PathBuf::as_path)
    }

    /// Returns the directories and the names of the documented crates.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.libraries
            .iter()
            .map(|(directory, name)| (directory.as_path(), name.as_str()))
    }

    /// Returns the path of this file's chapter in the book.
    pub(crate) fn chapter(&self, file: &Path) -> Option<&Path> {
        self.chapters.get(file).map(PathBuf::as_path)
    }

    /// Turns a link in a file of the repository into a link in the file's chapter.
    ///
    /// # Errors
    /// If the book does not contain the target of the link.
    pub(crate) fn rewrite(&self, from: &Path, to: &str) -> anyhow::Result<String> {
        let (path, anchor) = parts(to);
        let target = plain(&from.parent().unwrap_or(Path::new("")).join(path));
        let readme = target.join("README.md");
        let in_book = match (
            self.chapter(&target),
            self.chapter(&readme),
            self.libraries.get(&target),
        ) {
            (Some(chapter), _, _) | (None, Some(chapter), _) => chapter.to_owned(),
            (None, None, Some(library)) => Path::new("api").join(library).join("index.html"),
            (None, None, None) => match target.strip_prefix(BOOK) {
                // mdBook copies pictures and other files.
                Ok(beside) if beside.extension().is_some_and(|is| is != "md") => beside.to_owned(),
                _ => bail!(
                    "{} links to {to}, which the book does not have: list it in {SUMMARY}, or name it without a link",
                    from.display()
                ),
            },
        };
        let own = self.chapter(from).context("no chapter")?;
        let up = own.components().count() - 1;
        let mut link = "../".repeat(up) + &in_book.to_string_lossy();
        if let Some(anchor) = anchor {
            link = link + "#" + anchor;
        }
        Ok(link)
    }
}

/// Returns the file of a link in the list of chapters.
fn file(to: &str) -> PathBuf {
    plain(&Path::new(BOOK).join(parts(to).0))
}

/// Returns the path of a file's chapter in the book. Pages of `docs/` are at the top, other pages as in the
/// repository.
fn chapter_path(file: &Path) -> PathBuf {
    let path = file.strip_prefix(BOOK).unwrap_or(file);
    if path.file_name().is_some_and(|name| name == "README.md") {
        return path.with_file_name("index.md");
    }
    path.with_extension("md")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        let summary = "[aio](../README.md)\n- [Rules](rules.md)\n- [Architecture](../ARCHITECTURE.md)\n\
                       - [in_mio](../aio-context/examples/in_mio.rs)\n- [blockd](../examples/blockd/README.md)\n";
        let libraries = [("aio-context".into(), "aio_context".to_owned())];
        Pages::new(summary, libraries.into())
    }

    #[test]
    fn links_of_the_repository_become_links_of_the_book() {
        for (from, to, expected) in [
            ("README.md", "docs/rules.md#r1", "rules.md#r1"),
            ("README.md", "docs/demo.svg", "demo.svg"),
            ("README.md", "aio-context", "api/aio_context/index.html"),
            ("README.md", "examples/blockd", "examples/blockd/index.md"),
            ("docs/rules.md", "../README.md", "index.md"),
            (
                "docs/rules.md",
                "../aio-context/examples/in_mio.rs",
                "aio-context/examples/in_mio.md",
            ),
            (
                "examples/blockd/README.md",
                "../../docs/rules.md",
                "../../rules.md",
            ),
            (
                "aio-context/examples/in_mio.rs",
                "../../ARCHITECTURE.md",
                "../../ARCHITECTURE.md",
            ),
        ] {
            assert_eq!(
                pages().rewrite(Path::new(from), to).unwrap(),
                expected,
                "{from}: {to}"
            );
        }
    }

    #[test]
    fn a_link_to_what_the_book_lacks_is_refused() {
        for to in ["docs/other.md", "aio-context/src/lib.rs", "proofs"] {
            let refused = pages()
                .rewrite(Path::new("README.md"), to)
                .unwrap_err()
                .to_string();
            assert!(
                refused.contains(to) && refused.contains("list it in docs/SUMMARY.md"),
                "{refused}"
            );
        }
    }
}
