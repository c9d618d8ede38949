//! Compares the public interfaces with those of a release. A breaking change needs a version that announces
//! it.

use std::path::PathBuf;
use std::process::Command;

use aio_tools::interrupt::Interrupt;
use aio_tools::shell;
use aio_tools::tool::Tool;
use anyhow::Context as _;

use crate::library::Library;
use crate::pack::LIMIT;

const SEMVER: Tool = Tool {
    program: "cargo-semver-checks",
    package: "cargo-semver-checks@0.49.0",
};

/// Compares with the last release, or another revision. Returns the result in a line.
pub(crate) fn check(
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
                    "skipped: there is no release to compare with (no tag v*); --since names a revision"
                        .to_owned(),
                );
            }
        },
    };
    if let Err(why) = SEMVER.command()? {
        return Ok(format!("skipped: {why}"));
    }
    let before = Revision::check_out(&since)?;
    let mut count = 0;
    for library in libraries.iter().filter(|library| !library.is_apart()) {
        let directory = library.directory.strip_prefix(shell::root())?;
        if !before.0.join(directory).is_dir() {
            println!("{}: new", library.name);
            continue;
        }
        let Ok(mut command) = SEMVER.command()? else {
            continue;
        };
        // By directory, because names are not unique: proofs/modelled has manifests of its own.
        command
            .arg("--manifest-path")
            .arg(library.directory.join("Cargo.toml"));
        command.arg("--baseline-root").arg(before.0.join(directory));
        shell::run_within(&mut command, LIMIT, interrupt).with_context(|| {
            format!(
                "{} breaks its users: raise its version, or keep what {since} has",
                library.name
            )
        })?;
        count += 1;
    }
    Ok(format!("{count} libraries: no breaking change since {since}"))
}

/// Returns the last tag of a release.
fn last_release() -> anyhow::Result<Option<String>> {
    let described = git(&["describe", "--tags", "--abbrev=0", "--match", "v*"])
        .output()
        .context("git describe")?;
    let release = String::from_utf8_lossy(&described.stdout).trim().to_owned();
    Ok(described.status.success().then_some(release))
}

fn git(args: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.current_dir(shell::root()).args(args);
    git
}

/// A revision in a directory of its own, which is removed when this value is dropped.
struct Revision(PathBuf);

impl Revision {
    fn check_out(revision: &str) -> anyhow::Result<Self> {
        let path = shell::target_dir()?.join("package/baseline");
        let checked_out = Self(path);
        // Removes the rest of an interrupted run.
        checked_out.remove();
        let mut add = git(&["worktree", "add", "--quiet", "--force", "--detach"]);
        shell::run(add.arg(&checked_out.0).arg(revision))
            .with_context(|| format!("cannot check out {revision}"))?;
        Ok(checked_out)
    }

    fn remove(&self) {
        if self.0.exists() {
            let _ = git(&["worktree", "remove", "--force"]).arg(&self.0).status();
        }
    }
}

impl Drop for Revision {
    fn drop(&mut self) {
        self.remove();
    }
}
