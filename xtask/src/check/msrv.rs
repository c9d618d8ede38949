//! The oldest toolchain that is promised to do: stated by every crate, enough for every dependency, and built with where
//! rustup has it.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use cargo_metadata::semver::Version;

use aio_tools::shell;

pub(super) fn check() -> anyhow::Result<String> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(shell::root())
        .other_options(["--locked".to_owned()])
        .exec()
        .context("cargo metadata")?;
    let members = metadata.workspace_packages();
    let Some(version) = members.iter().find_map(|package| package.rust_version.clone()) else {
        bail!("no package states its rust-version");
    };
    for package in &members {
        ensure!(
            package.rust_version.as_ref() == Some(&version),
            "{} does not take its rust-version from the workspace",
            package.name
        );
    }
    let stated = metadata
        .packages
        .iter()
        .map(|package| (package.name.as_str(), package.rust_version.as_ref()));
    let demanding = beyond(&version, stated);
    ensure!(
        demanding.is_empty(),
        "{version} is promised, but these want more: {}",
        demanding.join(", ")
    );
    let Some(toolchain) = installed(&version) else {
        return Ok(format!(
            "{version} is stated, and enough for what the dependencies state; building with it is skipped: not installed"
        ));
    };
    let mut cargo = Command::new("rustup");
    cargo.current_dir(shell::root()).args([
        "run",
        &toolchain,
        "cargo",
        "check",
        "--quiet",
        "--locked",
        "--target-dir",
    ]);
    shell::run(cargo.arg(shell::target_dir()?.join("msrv")))?;
    Ok(format!("built with {toolchain}"))
}

/// The packages that state a later version than `promised`.
fn beyond<'a>(
    promised: &Version,
    stated: impl Iterator<Item = (&'a str, Option<&'a Version>)>,
) -> Vec<String> {
    stated
        .filter_map(|(name, version)| Some((name, version?)))
        .filter(|(_, version)| *version > promised)
        .map(|(name, version)| format!("{name} {version}"))
        .collect()
}

/// The toolchain of that version that rustup has.
fn installed(version: &Version) -> Option<String> {
    let listed = Command::new("rustup").args(["toolchain", "list"]).output().ok()?;
    find(&String::from_utf8_lossy(&listed.stdout), version)
}

/// Finds `1.91` as `1.91-x86_64...` or `1.91.1-x86_64...`, and not as `1.910`.
fn find(listed: &str, version: &Version) -> Option<String> {
    let short = format!("{}.{}", version.major, version.minor);
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| {
            name.strip_prefix(&short)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
        })
        .map(str::to_owned)
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_more_than_is_promised_is_named() {
        let (old, promised, new) = (
            Version::new(1, 60, 0),
            Version::new(1, 91, 0),
            Version::new(1, 92, 0),
        );
        let stated = [
            ("a", Some(&old)),
            ("b", None),
            ("c", Some(&promised)),
            ("d", Some(&new)),
        ];
        assert_eq!(beyond(&promised, stated.into_iter()), ["d 1.92.0"]);
    }

    #[test]
    fn toolchains_are_found_by_their_version() {
        let listed = "stable-x86_64 (active, default)\n1.910-x86_64\n1.91.1-x86_64 (default)\n1.92-x86_64";
        let find = |minor| find(listed, &Version::new(1, minor, 0));
        assert_eq!(find(91).as_deref(), Some("1.91.1-x86_64"));
        assert_eq!(find(92).as_deref(), Some("1.92-x86_64"));
        assert_eq!(find(9), None);
    }
}
