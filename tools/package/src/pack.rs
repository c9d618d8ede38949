//! Makes the packages, and compares them with the last release.

use std::fs;
use std::process::Command;
use std::time::Duration;

use aio_tools::interrupt::Interrupt;
use aio_tools::shell;
use aio_tools::tool::Tool;
use anyhow::Context as _;
use serde::Serialize;

use crate::library::Library;

/// Nothing here takes this long unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(30 * 60);

const SEMVER: Tool = Tool {
    program: "cargo-semver-checks",
    package: "cargo-semver-checks@0.49.0",
};

/// A package.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) library: String,
    pub(crate) version: String,
    pub(crate) bytes: u64,
}

/// Makes the packages in `target/package/package`.
pub(crate) fn pack(libraries: &[Library], interrupt: &Interrupt) -> anyhow::Result<Vec<Row>> {
    let target = shell::target_dir()?.join("package");
    for apart in [false, true] {
        let these = libraries.iter().filter(|library| library.is_apart() == apart);
        let Some(first) = these.clone().next() else {
            continue;
        };
        let mut cargo = first.cargo();
        // Without this option cargo builds them as well; `--check` does so with their tests. No library brings a lock file.
        cargo.args([
            "package",
            "--quiet",
            "--no-verify",
            "--allow-dirty",
            "--exclude-lockfile",
            "--target-dir",
        ]);
        cargo.arg(&target);
        for library in these {
            cargo.args(["--package", &library.name]);
        }
        shell::run_within(&mut cargo, LIMIT, interrupt)?;
    }
    libraries
        .iter()
        .map(|library| {
            let file = target.join("package").join(library.folder() + ".crate");
            let bytes = fs::metadata(&file)
                .with_context(|| file.display().to_string())?
                .len();
            println!("{:<20} {:>8} bytes", library.folder(), bytes);
            Ok(Row {
                library: library.name.clone(),
                version: library.version.clone(),
                bytes,
            })
        })
        .collect()
}

/// Compares with the last release, or another revision, by `cargo semver-checks`; the result in a line.
pub(crate) fn semver(
    libraries: &[Library],
    since: Option<&str>,
    interrupt: &Interrupt,
) -> anyhow::Result<String> {
    let since = match since {
        Some(since) => since.to_owned(),
        None => match last_release()? {
            Some(release) => release,
            None => {
                return Ok(
                    "skipped: there is no release to compare with (no tag v*); --since names another"
                        .to_owned(),
                );
            }
        },
    };
    let mut command = match SEMVER.command()? {
        Ok(command) => command,
        Err(why) => return Ok(format!("skipped: {why}")),
    };
    command.args(["--baseline-rev", &since]);
    for library in libraries.iter().filter(|library| !library.is_apart()) {
        command.args(["--package", &library.name]);
    }
    shell::run_within(&mut command, LIMIT, interrupt)?;
    Ok(format!("no breaking change since {since}"))
}

/// The last tag of a release.
fn last_release() -> anyhow::Result<Option<String>> {
    let mut describe = Command::new("git");
    describe
        .current_dir(shell::root())
        .args(["describe", "--tags", "--abbrev=0", "--match", "v*"]);
    let described = describe.output().context("git describe")?;
    let release = String::from_utf8_lossy(&described.stdout).trim().to_owned();
    Ok(described.status.success().then_some(release))
}
