//! Builds and tests the packages where their users have them: unpacked, outside the workspace, each depending on the others as packages.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use aio_tools::interrupt::{Interrupt, Interrupted};
use aio_tools::shell;
use anyhow::{Context as _, bail, ensure};

use crate::library::{self, Library};
use crate::pack::LIMIT;

/// A directory outside the workspace, which is removed in the end.
struct Outside(PathBuf);

impl Outside {
    /// Makes it. The name is always the same for a workspace, so that cargo finds what it built before; what an interrupted run has left
    /// is removed.
    fn new() -> anyhow::Result<Self> {
        let mut name = DefaultHasher::new();
        shell::root().hash(&mut name);
        let path = std::env::temp_dir().join(format!("aio-package-{:016x}", name.finish()));
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        // Fails if another user has made it meanwhile.
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Builds each package alone, then runs all tests; the result in a line.
pub(crate) fn check(libraries: &[Library], interrupt: &Interrupt) -> anyhow::Result<String> {
    let outside = Outside::new()?;
    let directory = &outside.0;
    let mut passed = 0;
    for apart in [false, true] {
        let these: Vec<&Library> = libraries
            .iter()
            .filter(|library| library.is_apart() == apart)
            .collect();
        if let Some(lacks) = these.iter().find_map(|library| library::lacks(library)) {
            println!("skipped: {lacks}");
            continue;
        }
        let workspace = directory.join(if apart { "apart" } else { "packages" });
        unpack(&these, &workspace)?;
        fs::write(workspace.join("Cargo.toml"), manifest(&these, libraries))?;
        let lock = if apart {
            Path::new(library::APART)
        } else {
            Path::new("")
        }
        .join("Cargo.lock");
        fs::copy(shell::root().join(lock), workspace.join("Cargo.lock"))?;
        for library in &these {
            println!("building {} alone", library.name);
            let mut cargo = cargo(&workspace)?;
            shell::run_within(
                cargo.args(["check", "--quiet", "--package", &library.name]),
                LIMIT,
                interrupt,
            )?;
        }
        passed += test(&workspace, interrupt)?;
    }
    Ok(format!("{passed} tests of unpacked packages passed"))
}

/// Unpacks the packages. The files are as old as now, because cargo builds only what is newer than what it has built, and files in
/// packages are all of the same age.
fn unpack(libraries: &[&Library], into: &Path) -> anyhow::Result<()> {
    fs::create_dir(into)?;
    let packages = shell::target_dir()?.join("package/package");
    for library in libraries {
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(into)
            .arg("-xzmf")
            .arg(packages.join(library.folder() + ".crate"));
        shell::run(&mut tar)?;
    }
    Ok(())
}

/// The manifest of a workspace of these packages, in which the other libraries are taken from their packages as well.
fn manifest(members: &[&Library], libraries: &[Library]) -> String {
    let mut lines = vec!["[workspace]".to_owned(), "resolver = \"3\"".to_owned()];
    let folders: Vec<String> = members
        .iter()
        .map(|library| format!("{:?}", library.folder()))
        .collect();
    lines.push(format!("members = [{}]", folders.join(", ")));
    lines.push("\n[profile.dev]\ndebug = 0".to_owned());
    // Their tests replay millions of waits.
    let replaying = members
        .iter()
        .filter(|library| ["aio-pollctl", "aio-replay"].contains(&library.name.as_str()));
    for library in replaying {
        lines.push(format!("package.{}.opt-level = 3", library.name));
    }
    lines.push("\n[patch.crates-io]".to_owned());
    for library in libraries.iter().filter(|library| !library.is_apart()) {
        let folder = if members.iter().any(|member| member.name == library.name) {
            library.folder()
        } else {
            format!("../packages/{}", library.folder())
        };
        lines.push(format!("{} = {{ path = {folder:?} }}", library.name));
    }
    lines.join("\n") + "\n"
}

fn cargo(workspace: &Path) -> anyhow::Result<Command> {
    let mut cargo = shell::cargo();
    cargo.current_dir(workspace);
    cargo.env("CARGO_TARGET_DIR", shell::target_dir()?.join("package/build"));
    Ok(cargo)
}

/// Runs the tests and the examples of the documentation in all packages of a workspace, and compiles their examples; how many passed.
fn test(workspace: &Path, interrupt: &Interrupt) -> anyhow::Result<u64> {
    let log = shell::target_dir()?.join("package/tests.log");
    println!("testing all, see {}", log.display());
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut cargo = cargo(workspace)?;
    cargo.args(["test", "--workspace", "--all-features", "--no-fail-fast"]);
    cargo.stdout(file.try_clone()?).stderr(file);
    let ended = shell::run_within(&mut cargo, LIMIT, interrupt);
    let text = fs::read_to_string(&log)?;
    match ended {
        Err(why) if !why.is::<Interrupted>() => {
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            bail!(
                "{last}\nunpacked packages fail their tests: {why:#}; see {}",
                log.display()
            )
        }
        ended => ended?,
    }
    let passed = passed(&text);
    ensure!(passed > 0, "no test was run; see {}", log.display());
    Ok(passed)
}

/// How many tests passed, by the closing lines of test programs.
fn passed(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once("test result: ok. ")?.1.split_once(" passed"))
        .filter_map(|(count, _)| count.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn library(name: &str) -> Library {
        Library {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            directory: PathBuf::new(),
            package: Value::Null,
        }
    }

    #[test]
    fn packages_depend_on_packages() {
        let libraries = [
            library("aio-backend"),
            library("aio-context"),
            library("aio-glib"),
        ];
        let all: Vec<&Library> = libraries[..2].iter().collect();
        let text = manifest(&all, &libraries);
        assert!(
            text.contains("members = [\"aio-backend-0.1.0\", \"aio-context-0.1.0\"]\n"),
            "{text}"
        );
        assert!(text.ends_with("aio-backend = { path = \"aio-backend-0.1.0\" }\naio-context = { path = \"aio-context-0.1.0\" }\n"), "{text}");
        let text = manifest(&[&libraries[2]], &libraries);
        assert!(
            text.contains("aio-context = { path = \"../packages/aio-context-0.1.0\" }\n"),
            "{text}"
        );
        assert!(!text.contains("aio-glib ="), "{text}");
    }

    #[test]
    fn passed_tests_are_summed() {
        assert_eq!(
            passed("test result: ok. 2 passed; 0 failed\n\ntest result: ok. 40 passed; 1 ignored\n"),
            42
        );
    }
}
