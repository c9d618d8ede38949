//! `cargo xtask deps`: the number of crates in the tree of each library, its limit, and the lines of `unsafe` code.

use std::path::Path;

use aio_tools::report::{self, Machine};
use aio_tools::shell;
use anyhow::bail;
use serde::Serialize;

use crate::library::{self, Library};
use crate::tree::{Tree, unsafe_lines};

/// The largest number of crates in the tree of a library, including those of this workspace.
const LIMITS: [(&str, usize); 15] = [
    ("aio-backend", 3),
    ("aio-backend-epoll", 8),
    ("aio-backend-ladder", 8),
    ("aio-backend-ppoll", 8),
    ("aio-backend-uring", 10),
    ("aio-context", 16),
    ("aio-executor", 18),
    ("aio-handlers", 2),
    ("aio-metrics", 31),
    ("aio-notify", 6),
    ("aio-pollctl", 0),
    ("aio-pollset", 2),
    ("aio-replay", 1),
    ("aio-sources", 20),
    ("aio-timers", 0),
];
/// Libraries that need no std, and targets without it. The first target has 32-bit atomics that only load and
/// store, the second has all 32-bit atomics. Neither has 64-bit ones.
const WITHOUT_STD: [&str; 2] = ["aio-pollctl", "aio-timers"];
const TARGETS: [&str; 2] = ["thumbv6m-none-eabi", "thumbv7em-none-eabi"];

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    library: String,
    crates: usize,
    limit: Option<usize>,
    /// The crates from outside this workspace.
    from_outside: usize,
    unsafe_lines: usize,
    unsafe_lines_in_tree: usize,
}

pub(crate) fn run(json: Option<&Path>) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut faults = Vec::new();
    println!(
        "{:<20} {:>6} {:>6} {:>13} {:>7} {:>13}",
        "", "crates", "limit", "from outside", "unsafe", "with its tree"
    );
    for library in library::all()? {
        let tree = Tree::of(&library)?;
        let row = row(&library, &tree)?;
        println!("{row}");
        faults.extend(beyond(&row, &tree));
        faults.extend(misstated(&library.name, &library.readme()?, &tree));
        rows.push(row);
    }
    println!(
        "crates: normal dependencies with default features; unsafe: lines of code with the word, in src, tests not counted"
    );
    faults.extend(without_std()?);
    if let Some(file) = json {
        report::write_json(file, Machine::this(), &rows)?;
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    let most = rows.iter().map(|row| row.crates).max().unwrap_or(0);
    println!(
        "{} libraries of 0 to {most} crates, none beyond its limit",
        rows.len()
    );
    Ok(())
}

fn row(library: &Library, tree: &Tree) -> anyhow::Result<Row> {
    let own = unsafe_lines(&library.directory)?;
    let mut in_tree = own;
    for directory in tree.0.values() {
        in_tree += unsafe_lines(directory)?;
    }
    let from_outside = tree.names().into_iter().filter(|name| !name.starts_with("aio-"));
    Ok(Row {
        library: library.name.clone(),
        crates: tree.0.len(),
        limit: limit(&library.name),
        from_outside: from_outside.count(),
        unsafe_lines: own,
        unsafe_lines_in_tree: in_tree,
    })
}

fn limit(library: &str) -> Option<usize> {
    LIMITS
        .iter()
        .find(|(name, _)| *name == library)
        .map(|(_, limit)| *limit)
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limit = self
            .limit
            .map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        write!(
            f,
            "{:<20} {:>6} {limit:>6} {:>13} {:>7} {:>13}",
            self.library, self.crates, self.from_outside, self.unsafe_lines, self.unsafe_lines_in_tree
        )
    }
}

/// Returns the fault if the tree has more crates than its limit.
fn beyond(row: &Row, tree: &Tree) -> Option<String> {
    let limit = row.limit.filter(|limit| row.crates > *limit)?;
    Some(format!(
        "{} depends on {} crates, {limit} are allowed: {}; do without one (cargo tree -e normal -p {0}), or raise LIMITS in \
         tools/package/src/deps.rs with a reason in ARCHITECTURE.md",
        row.library,
        row.crates,
        tree.names().join(", ")
    ))
}

/// Returns the fault if the README states other dependencies.
fn misstated(library: &str, readme: &str, tree: &Tree) -> Option<String> {
    let line = format!("| dependencies | {} |", tree.sentence());
    (!readme.lines().any(|other| other == line)).then(|| {
        format!("{library}/README.md does not state its dependencies as they are; write the line\n{line}")
    })
}

/// Builds the libraries that need no std for targets without it.
fn without_std() -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for target in TARGETS {
        if !is_installed(target) {
            println!("skipped: {target} is not installed (rustup target add {target})");
            continue;
        }
        for library in WITHOUT_STD {
            let mut cargo = shell::cargo();
            cargo
                .args([
                    "build",
                    "--quiet",
                    "--locked",
                    "--no-default-features",
                    "--package",
                    library,
                ])
                .args(["--target", target, "--target-dir"])
                .arg(shell::target_dir()?.join("package/build"));
            match shell::run(&mut cargo) {
                Ok(()) => println!("{library} builds for {target}, without std"),
                Err(why) => faults.push(format!("{library} does not build without std: {why:#}")),
            }
        }
    }
    Ok(faults)
}

/// Returns `true` if the compiler has the core library of a target.
fn is_installed(target: &str) -> bool {
    let mut rustc = std::process::Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let printed = rustc
        .args(["--print", "target-libdir", "--target", target])
        .output();
    printed.is_ok_and(|printed| {
        let directory = String::from_utf8_lossy(&printed.stdout).trim().to_owned();
        !directory.is_empty() && Path::new(&directory).is_dir()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[&str]) -> Tree {
        Tree(
            names
                .iter()
                .map(|name| (format!("{name} v1.0.0"), "".into()))
                .collect(),
        )
    }

    #[test]
    fn l14_libraries_for_targets_without_std_do_without_it() {
        for library in WITHOUT_STD {
            let file = shell::root().join(library).join("src/lib.rs");
            let text = std::fs::read_to_string(file).unwrap();
            assert!(text.contains("\n#![no_std]\n"), "{library}");
        }
        assert!(!is_installed("no-such-target"));
    }

    #[test]
    fn a_tree_beyond_its_limit_is_a_fault() {
        let row = |crates| Row {
            library: "aio-handlers".to_owned(),
            crates,
            limit: limit("aio-handlers"),
            from_outside: 1,
            unsafe_lines: 0,
            unsafe_lines_in_tree: 0,
        };
        let three = tree(&["aio-backend", "bitflags", "new"]);
        assert_eq!(beyond(&row(2), &three), None);
        let fault = beyond(&row(3), &three).unwrap();
        assert!(
            fault.starts_with("aio-handlers depends on 3 crates, 2 are allowed: aio-backend, bitflags, new"),
            "{fault}"
        );
    }

    #[test]
    fn a_readme_states_the_dependencies_as_they_are() {
        let readme = "# a\n| dependencies | 1 crate in all: `b` |\n";
        assert_eq!(misstated("a", readme, &tree(&["b"])), None);
        let fault = misstated("a", readme, &tree(&["b", "c"])).unwrap();
        assert!(
            fault.ends_with("| dependencies | 2 crates in all: `b`, `c` |"),
            "{fault}"
        );
    }

    #[test]
    fn each_limit_is_that_of_a_library() {
        let libraries = library::all().unwrap();
        for (name, _) in LIMITS {
            assert!(libraries.iter().any(|library| library.name == name), "{name}");
        }
        for library in libraries.iter().filter(|library| !library.is_apart()) {
            assert!(limit(&library.name).is_some(), "{} needs a limit", library.name);
        }
    }
}
