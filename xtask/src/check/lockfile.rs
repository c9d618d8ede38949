//! Lock files: those of users and those of the other workspaces here.
//!
//! The lock file of a user contains neither the model checkers nor any other crate that only tests need. A
//! lock file also has the dependencies that a `cfg` excludes. So the manifests of the libraries must not name
//! the checkers at all; `proofs/modelled` has manifests of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::shell::{self, LIBRARIES};

/// Crates that only tests need.
const ONLY_FOR_TESTS: [&str; 3] = ["fastrand", "loom", "shuttle"];
/// The greatest number of packages in the lock file of a user of one library, including the user's own.
const MOST: [(&str, usize); 2] = [("aio-timers", 2), ("aio-notify", 12)];

pub(super) fn check() -> anyhow::Result<String> {
    let mut faults = stale()?;
    let mut sizes = Vec::new();
    for library in LIBRARIES {
        let locked = locked(library)?;
        faults.extend(unneeded(library, &locked));
        sizes.push(locked.len());
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(format!(
        "a user of one library has {} to {} packages",
        sizes.iter().min().unwrap_or(&0),
        sizes.iter().max().unwrap_or(&0)
    ))
}

/// Returns the lock files of the other workspaces that no longer fit the manifests. A change of a library's
/// dependencies does not update them.
fn stale() -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for lock in shell::tracked(&["*/Cargo.lock"])? {
        let manifest = lock.with_file_name("Cargo.toml");
        let mut cargo = shell::cargo();
        cargo
            .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
            .arg(&manifest);
        match shell::output(&mut cargo) {
            Ok(_) => {}
            Err(why) if format!("{why:#}").contains("cannot update the lock file") => faults.push(format!(
                "{} does not fit its manifests: cargo update --workspace --manifest-path {} mends it",
                lock.display(),
                manifest.display()
            )),
            // For example, there is no network for a crate that only that workspace needs.
            Err(why) => println!("skipped: {}: {why:#}", lock.display()),
        }
    }
    Ok(faults)
}

/// Returns the packages in the lock file of a crate outside the workspace that depends on this library.
fn locked(library: &str) -> anyhow::Result<BTreeSet<String>> {
    let user = tempfile::tempdir()?;
    let manifest = format!(
        "[package]\nname = \"user\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n{library} = {{ path = {:?} }}\n\n[workspace]\n",
        shell::root().join(library)
    );
    fs::write(user.path().join("Cargo.toml"), manifest)?;
    fs::create_dir(user.path().join("src"))?;
    fs::write(user.path().join("src/lib.rs"), "")?;
    // The lock file of the workspace provides the versions, so that the registry is not needed.
    let lock = user.path().join("Cargo.lock");
    fs::copy(shell::root().join("Cargo.lock"), &lock)?;
    generate(user.path(), library)?;
    Ok(names(&fs::read_to_string(lock)?))
}

fn generate(user: &Path, library: &str) -> anyhow::Result<()> {
    let mut cargo = shell::cargo();
    cargo
        .current_dir(user)
        .args(["metadata", "--offline", "--format-version", "1"]);
    shell::output(&mut cargo).with_context(|| format!("no lock file for a user of {library}"))?;
    Ok(())
}

fn names(lock: &str) -> BTreeSet<String> {
    lock.lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .collect()
}

fn unneeded(library: &str, locked: &BTreeSet<String>) -> Vec<String> {
    let mut faults: Vec<String> = ONLY_FOR_TESTS
        .iter()
        .filter(|name| locked.contains(**name))
        .map(|name| format!("the lock file of a user of {library} has {name}"))
        .collect();
    let most = MOST.iter().find(|(name, _)| *name == library);
    if let Some((_, most)) = most.filter(|(_, most)| locked.len() > *most) {
        faults.push(format!(
            "the lock file of a user of {library} has {} packages, {most} are allowed",
            locked.len()
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_tests_need_is_found() {
        let lock = "[[package]]\nname = \"aio-notify\"\ndependencies = [\n \"loom\",\n]\n\n[[package]]\nname = \"loom\"\n";
        assert_eq!(
            unneeded("aio-notify", &names(lock)),
            ["the lock file of a user of aio-notify has loom"]
        );
        assert_eq!(
            unneeded("aio-notify", &names("name = \"user\"\n")),
            Vec::<String>::new()
        );
        let many = names("name = \"a\"\nname = \"b\"\nname = \"c\"\n");
        assert_eq!(unneeded("aio-timers", &many).len(), 1);
    }
}
