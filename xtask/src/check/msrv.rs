//! The minimum supported Rust version: every crate states it, every dependency builds with it, and this step
//! builds with it if rustup has it.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::shell;
use serde_json::Value;

/// Major, minor, patch; a missing part is 0.
type Version = [u64; 3];

pub(super) fn check() -> anyhow::Result<String> {
    let metadata = shell::metadata(&["--locked"])?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let members = metadata["workspace_members"].as_array();
    let members = members.context("cargo metadata lists no members")?;
    let members: Vec<&Value> = packages
        .iter()
        .filter(|package| members.contains(&package["id"]))
        .collect();
    let stated = |package: &Value| version(package["rust_version"].as_str()?);
    let Some(promised) = members.iter().find_map(|package| stated(package)) else {
        bail!("no package states its rust-version");
    };
    for package in &members {
        ensure!(
            stated(package) == Some(promised),
            "{} does not take its rust-version from the workspace",
            package["name"]
        );
    }
    let packages = packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap_or_default(), stated(package)));
    let demanding = beyond(promised, packages);
    let version = text(promised);
    ensure!(
        demanding.is_empty(),
        "{version} is promised, but these want more: {}",
        demanding.join(", ")
    );
    let Some(toolchain) = installed(promised) else {
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

/// Parses `1.91` and `1.91.1`, also with a word after a dash.
fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split('-').next()?.split('.').map(str::parse);
    let mut next = || numbers.next().unwrap_or(Ok(0)).ok();
    Some([next()?, next()?, next()?])
}

fn text([major, minor, patch]: Version) -> String {
    format!("{major}.{minor}.{patch}")
}

/// Returns the packages that state a later version than `promised`.
fn beyond<'a>(promised: Version, stated: impl Iterator<Item = (&'a str, Option<Version>)>) -> Vec<String> {
    stated
        .filter_map(|(name, version)| Some((name, version?)))
        .filter(|(_, version)| *version > promised)
        .map(|(name, version)| format!("{name} {}", text(version)))
        .collect()
}

/// Returns rustup's toolchain of that version.
fn installed(version: Version) -> Option<String> {
    let listed = Command::new("rustup").args(["toolchain", "list"]).output().ok()?;
    find(&String::from_utf8_lossy(&listed.stdout), version)
}

/// Finds `1.91` as `1.91-x86_64...` or `1.91.1-x86_64...`, but not as `1.910`.
fn find(listed: &str, [major, minor, _]: Version) -> Option<String> {
    let short = format!("{major}.{minor}");
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
    fn versions_are_read_as_cargo_states_them() {
        assert_eq!(version("1.91"), Some([1, 91, 0]));
        assert_eq!(version("1.56.1"), Some([1, 56, 1]));
        assert_eq!(version("1.70.0-nightly"), Some([1, 70, 0]));
        assert_eq!(version("soon"), None);
    }

    #[test]
    fn who_wants_more_than_is_promised_is_named() {
        let stated = [
            ("a", Some([1, 60, 0])),
            ("b", None),
            ("c", Some([1, 91, 0])),
            ("d", Some([1, 92, 0])),
        ];
        assert_eq!(beyond([1, 91, 0], stated.into_iter()), ["d 1.92.0"]);
    }

    #[test]
    fn toolchains_are_found_by_their_version() {
        let listed = "stable-x86_64 (active, default)\n1.910-x86_64\n1.91.1-x86_64 (default)\n1.92-x86_64";
        let find = |minor| find(listed, [1, minor, 0]);
        assert_eq!(find(91).as_deref(), Some("1.91.1-x86_64"));
        assert_eq!(find(92).as_deref(), Some("1.92-x86_64"));
        assert_eq!(find(9), None);
    }
}
