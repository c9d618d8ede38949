//! Builds and tests the packages as users have them: unpacked, outside the workspace, each depending on the
//! others as packages.

use std::fs;
use std::path::Path;

use aio_tools::interrupt::{Interrupt, Interrupted};
use aio_tools::shell;
use anyhow::{Context as _, bail, ensure};

use crate::library::{self, Library};
use crate::outside::{self, Outside};
use crate::pack::LIMIT;

/// Builds each package alone, then runs all tests. Returns the result in a line.
pub(crate) fn check(
    libraries: &[Library],
    outside: &Outside,
    interrupt: &Interrupt,
) -> anyhow::Result<String> {
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
        let workspace = outside.workspace(apart);
        fs::write(workspace.join("Cargo.toml"), manifest(&these, libraries, outside))?;
        outside::copy_lock(apart, &workspace)?;
        for library in &these {
            println!("building {} alone", library.name);
            let mut cargo = outside::cargo(&workspace, "build")?;
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

/// Returns the manifest of a workspace of these packages, in which the other libraries also come from their
/// packages.
fn manifest(members: &[&Library], libraries: &[Library], outside: &Outside) -> String {
    let mut lines = vec!["[workspace]".to_owned(), "resolver = \"3\"".to_owned()];
    let folders: Vec<String> = members
        .iter()
        .map(|library| format!("{:?}", library.folder()))
        .collect();
    lines.push(format!("members = [{}]", folders.join(", ")));
    lines.push("\n[profile.dev]\ndebug = 0".to_owned());
    // The tests of these libraries replay millions of waits.
    let replaying = members
        .iter()
        .filter(|library| ["aio-pollctl", "aio-replay"].contains(&library.name.as_str()));
    for library in replaying {
        lines.push(format!("package.{}.opt-level = 3", library.name));
    }
    lines.join("\n") + "\n" + &outside.patch(libraries.iter().filter(|library| !library.is_apart()))
}

/// Runs the tests and the documentation examples of all packages of a workspace, and compiles their example
/// programs. Returns the number of passed tests.
fn test(workspace: &Path, interrupt: &Interrupt) -> anyhow::Result<u64> {
    let log = shell::target_dir()?.join("package/tests.log");
    println!("testing all, see {}", log.display());
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut cargo = outside::cargo(workspace, "build")?;
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

/// Returns the number of passed tests, from the last lines of the test programs.
fn passed(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once("test result: ok. ")?.1.split_once(" passed"))
        .filter_map(|(count, _)| count.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_summed() {
        assert_eq!(
            passed("test result: ok. 2 passed; 0 failed\n\ntest result: ok. 40 passed; 1 ignored\n"),
            42
        );
    }
}
