//! Checks for long files, unfinished code, unsafe blocks beyond the budget, and paths of a particular
//! machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::shell;

/// The greatest number of lines of a source file, without its tests.
const LONGEST: usize = 500;
/// The greatest number of unsafe blocks in the libraries, without tests.
const UNSAFE_BUDGET: usize = 21;
/// Libraries that forbid unsafe code.
const SAFE: [&str; 12] = [
    "aio-backend",
    "aio-backend-epoll",
    "aio-backend-ladder",
    "aio-handlers",
    "aio-pollctl",
    "aio-pollset",
    "aio-replay",
    "aio-timers",
    "aio-context",
    "aio-sources",
    "aio-executor",
    "aio-metrics",
];
/// Libraries that may have unsafe code.
const UNSAFE: [&str; 4] = ["aio-backend-ppoll", "aio-backend-uring", "aio-glib", "aio-notify"];

pub(super) fn check() -> anyhow::Result<String> {
    let mut faults = unknown_libraries(&libraries()?);
    let mut blocks = 0;
    for file in tracked()? {
        let name = file.display().to_string();
        let Ok(bytes) = std::fs::read(shell::root().join(&file)) else {
            continue;
        };
        faults.extend(left_behind(&name, &bytes));
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        faults.extend(strange_words(&name, &text));
        if file.extension().is_some_and(|extension| extension == "rs") && !is_test(&file) {
            faults.extend(too_long(&name, &text));
        }
        if is_library_code(&file) {
            blocks += unsafe_blocks(&text);
        }
    }
    for library in SAFE {
        let root = shell::root().join(library).join("src/lib.rs");
        let text = std::fs::read_to_string(&root).with_context(|| root.display().to_string())?;
        if !text.contains("#![forbid(unsafe_code)]") {
            faults.push(format!("{library} does not forbid unsafe code"));
        }
    }
    if blocks > UNSAFE_BUDGET {
        faults.push(format!(
            "{blocks} unsafe blocks in the libraries, {UNSAFE_BUDGET} are allowed"
        ));
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(format!(
        "{blocks} of {UNSAFE_BUDGET} unsafe blocks, no file of more than {LONGEST} lines"
    ))
}

/// Returns the files that belong to the project.
pub(super) fn tracked() -> anyhow::Result<Vec<PathBuf>> {
    shell::tracked(&[])
}

pub(super) fn is_test(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

fn is_library_code(file: &Path) -> bool {
    let in_library = SAFE
        .iter()
        .chain(&UNSAFE)
        .any(|library| file.starts_with(Path::new(library).join("src")));
    in_library && !is_test(file)
}

/// Returns the crates for users, which are all crates except programs.
pub(super) fn libraries() -> anyhow::Result<Vec<String>> {
    let metadata = shell::metadata(&["--no-deps"])?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let libraries = packages.iter().filter(|package| {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let mut targets = package["targets"].as_array().into_iter().flatten();
        manifest.parent().and_then(Path::parent) == Some(shell::root())
            && targets.any(|target| {
                target["kind"]
                    .as_array()
                    .is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib"))
            })
    });
    Ok(libraries
        .map(|package| package["name"].as_str().unwrap_or_default().to_owned())
        .collect())
}

/// Returns a fault if a file is not text. The project is text; other files are the output of tools and must
/// not be committed.
fn left_behind(name: &str, bytes: &[u8]) -> Option<String> {
    let is_text = !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
    (!is_text && !name.starts_with("fuzz/seeds/"))
        .then(|| format!("{name} is not text; remove it, or make it when it is needed"))
}

/// Returns the libraries that are on neither list. A new library must be added to one of the two.
fn unknown_libraries(libraries: &[String]) -> Vec<String> {
    let listed = |name: &str| SAFE.iter().chain(&UNSAFE).any(|known| *known == name);
    libraries
        .iter()
        .filter(|name| !listed(name))
        .map(|name| {
            format!(
                "{name} is neither on the list of libraries without unsafe code nor on that of those with"
            )
        })
        .collect()
}

/// Returns a file without its unit tests, which are at its end.
fn code(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests")
        .map_or(text, |(code, _)| code)
}

fn too_long(name: &str, text: &str) -> Option<String> {
    let lines = code(text).lines().count();
    (lines > LONGEST)
        .then(|| format!("{name} has {lines} lines, {LONGEST} are allowed: split it by responsibility"))
}

fn unsafe_blocks(text: &str) -> usize {
    code(text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| line.matches("unsafe {").count())
        .sum()
}

/// Returns the forbidden words in a file. They are written in pieces so that this file does not contain them.
fn strange_words(name: &str, text: &str) -> Vec<String> {
    let words = [
        ["todo", "!("],
        ["unimplemented", "!("],
        ["FIX", "ME"],
        ["#[ign", "ore]"],
        ["/home", "/"],
        ["/root", "/"],
    ];
    let found = words
        .iter()
        .map(|pieces| pieces.concat())
        .filter(|word| text.contains(word.as_str()));
    found.map(|word| format!("{name} contains {word:?}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_has_left_behind_is_found() {
        assert_eq!(left_behind("README.md", "# \u{e9}".as_bytes()), None);
        assert_eq!(left_behind("fuzz/seeds/nbd/list", b"\0\xff"), None);
        for bytes in [&b"a\0b"[..], b"\xff"] {
            let fault = left_behind("examples/blockd/verify.state", bytes);
            assert!(fault.is_some_and(|fault| fault.starts_with("examples/blockd/verify.state is not text")));
        }
    }

    #[test]
    fn unsafe_blocks_are_counted_outside_tests_and_comments() {
        let tests = "#[cfg(test)]\nmod tests { unsafe { } }";
        let text = format!("// unsafe {{\nlet a = unsafe {{ b() }};\n    unsafe {{ c() }}\n{tests}");
        assert_eq!(unsafe_blocks(&text), 2);
    }

    #[test]
    fn long_files_and_strange_words_are_found() {
        let long = "line\n".repeat(LONGEST + 1);
        assert!(too_long("a.rs", &long).is_some());
        assert!(too_long("a.rs", &"line\n".repeat(LONGEST)).is_none());
        assert_eq!(strange_words("a.rs", &["to", "do!(", ")"].concat()).len(), 1);
        assert_eq!(strange_words("a.rs", "nothing"), Vec::<String>::new());
    }

    #[test]
    fn a_new_library_has_to_be_listed() {
        let names = ["aio-context", "aio-notify", "aio-new"].map(str::to_owned);
        assert_eq!(unknown_libraries(&names).len(), 1);
        assert!(unknown_libraries(&names)[0].starts_with("aio-new"));
    }

    #[test]
    fn tests_are_distinguished_from_code() {
        assert!(is_test(Path::new("aio-context/tests/it/main.rs")));
        assert!(is_test(Path::new("aio-handlers/src/model_tests.rs")));
        assert!(!is_test(Path::new("aio-handlers/src/lib.rs")));
    }
}
