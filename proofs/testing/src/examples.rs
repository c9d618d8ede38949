//! The examples of a crate, for the tests that run them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the folder of the examples of `package`. `cargo test` builds them beside the calling test. If only
/// that test was requested, some of `names` are missing, and this function builds them.
///
/// # Panics
/// If they cannot be built.
pub fn folder(package: &str, names: &[&str]) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let folder = profile.join("examples");
    if !names.iter().all(|name| folder.join(name).exists()) {
        let mut build = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        build.args(["build", "--quiet", "--examples", "--package", package]);
        build.arg("--target-dir").args(profile.parent());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo can be started");
        assert!(status.success(), "the examples cannot be built");
    }
    folder
}

/// Runs an example to its end and returns its standard output.
///
/// # Panics
/// If the example cannot be started, fails, or prints something other than text.
pub fn prints(command: &mut Command) -> String {
    let output = command.output().expect("the example can be started");
    let said = String::from_utf8(output.stdout).expect("it prints text");
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Asserts that each example of the crate in this directory has less than 100 lines, because examples show
/// short uses.
///
/// # Panics
/// If one is longer, or cannot be read.
pub fn are_short(manifest: &str) {
    for entry in std::fs::read_dir(Path::new(manifest).join("examples")).expect("there are examples") {
        let path = entry.expect("it can be read").path();
        let lines = std::fs::read_to_string(&path)
            .expect("it is text")
            .lines()
            .count();
        assert!(lines < 100, "{}: {lines}", path.display());
    }
}
