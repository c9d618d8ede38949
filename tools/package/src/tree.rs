//! [`Tree`]: all crates that a library depends on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aio_tools::shell;
use anyhow::Context as _;

use crate::library::Library;

/// The crates that a library depends on, by name and version, with the directories of their sources.
#[derive(Debug)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, PathBuf>);

impl Tree {
    /// Returns the normal dependencies of a library, with its default features, on this target.
    pub(crate) fn of(library: &Library) -> anyhow::Result<Self> {
        let mut cargo = library.cargo();
        cargo
            .args([
                "tree",
                "--locked",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--package",
                &library.name,
            ])
            .args(["--format", "{p}"]);
        let names = names(&shell::output(&mut cargo)?, &library.name);
        let manifest = library.directory.join("Cargo.toml").display().to_string();
        let metadata = shell::metadata(&["--locked", "--manifest-path", &manifest])?;
        let packages = metadata["packages"].as_array();
        let packages = packages.context("cargo metadata lists no packages")?;
        let directory = |name: &str| {
            packages.iter().find_map(|package| {
                let named = format!("{} v{}", package["name"].as_str()?, package["version"].as_str()?);
                let manifest = Path::new(package["manifest_path"].as_str()?);
                (named == name)
                    .then(|| manifest.parent().map(Path::to_owned))
                    .flatten()
            })
        };
        let with_directory = names.into_iter().map(|name| {
            let directory = directory(&name).with_context(|| format!("cargo metadata lists no {name}"))?;
            Ok((name, directory))
        });
        Ok(Self(with_directory.collect::<anyhow::Result<_>>()?))
    }

    /// Returns the names of the dependencies, without versions.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0
            .keys()
            .map(|name| name.split(' ').next().unwrap_or(name))
            .collect()
    }

    /// Returns the part of a README's table that states the dependencies.
    pub(crate) fn sentence(&self) -> String {
        let names = self.names();
        let own = names.iter().filter(|name| name.starts_with("aio-")).count();
        let crates = if names.len() == 1 { "crate" } else { "crates" };
        match names.len() {
            0 => "none".to_owned(),
            number @ 1..=8 => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                format!("{number} {crates} in all: {}", names.join(", "))
            }
            number => format!("{number} {crates} in all, {own} of them of this family"),
        }
    }
}

/// Returns the packages of a tree as `cargo tree` prints it, each once, without `root`.
fn names(printed: &str, root: &str) -> Vec<String> {
    let mut names: Vec<String> = printed
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        })
        .filter(|name| name.split(' ').next() != Some(root))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Returns the number of lines of code with the word `unsafe` in the sources below a directory, without
/// tests.
pub(crate) fn unsafe_lines(directory: &Path) -> anyhow::Result<usize> {
    let mut lines = 0;
    let mut left = vec![directory.join("src")];
    while let Some(folder) = left.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if name != "tests" {
                    left.push(path);
                }
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                lines += unsafe_in(&fs::read_to_string(&path)?);
            }
        }
    }
    Ok(lines)
}

/// Returns the number of lines with the word `unsafe` before the first module of unit tests, without
/// comments.
fn unsafe_in(text: &str) -> usize {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.lines()
        .take_while(|line| line.trim_end() != "mod tests {")
        .map(|line| line.split("//").next().unwrap_or_default())
        .filter(|line| line.split(|letter| !is_word(letter)).any(|word| word == "unsafe"))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_counted_once() {
        let printed =
            "top v0.1.0 (/some/where)\nlow v1.2.3\nmacros v1.0.0 (proc-macro)\nlow v1.2.3 (*)\nlow v2.0.0\n";
        assert_eq!(
            names(printed, "top"),
            ["low v1.2.3", "low v2.0.0", "macros v1.0.0"]
        );
    }

    #[test]
    fn unsafe_is_a_word_in_code() {
        let text = "#![forbid(unsafe_code)]\n// unsafe\nlet a = unsafe { b() }; // unsafe\nunsafe impl Send for A {}\nmod tests {\nunsafe {}\n";
        assert_eq!(unsafe_in(text), 2);
    }

    #[test]
    fn a_sentence_names_few_crates_and_counts_many() {
        let tree = |names: &[&str]| {
            Tree(
                names
                    .iter()
                    .map(|name| ((*name).to_owned(), PathBuf::new()))
                    .collect(),
            )
        };
        assert_eq!(tree(&[]).sentence(), "none");
        assert_eq!(tree(&["a v1.0.0"]).sentence(), "1 crate in all: `a`");
        assert_eq!(
            tree(&["a v1.0.0", "b v1.0.0"]).sentence(),
            "2 crates in all: `a`, `b`"
        );
        let many: Vec<String> = (0..9).map(|number| format!("aio-{number} v1.0.0")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(
            tree(&many).sentence(),
            "9 crates in all, 9 of them of this family"
        );
    }
}
