//! Steps that need a tool which is not part of Rust: skipped, with a line that says so, where it is not installed.

use std::process::Command;

use crate::shell;

/// Whose features are tried.
const LIBRARIES: [&str; 9] = [
    "aio-backend",
    "aio-backend-epoll",
    "aio-backend-ladder",
    "aio-backend-ppoll",
    "aio-context",
    "aio-handlers",
    "aio-notify",
    "aio-pollctl",
    "aio-timers",
];

fn skipped(tool: &str) -> anyhow::Result<String> {
    let why = format!("skipped: {tool} is not installed");
    println!("{why}");
    Ok(why)
}

/// Spelling.
pub(super) fn typos() -> anyhow::Result<String> {
    if !shell::is_installed("typos") {
        return skipped("typos");
    }
    shell::run(Command::new("typos").current_dir(shell::root()))?;
    Ok(String::new())
}

/// Dependencies that nobody uses.
pub(super) fn machete() -> anyhow::Result<String> {
    if !shell::is_installed("cargo-machete") {
        return skipped("cargo-machete");
    }
    // Started by cargo, it would take its own name for a directory.
    shell::run(Command::new("cargo-machete").arg(shell::root()))?;
    Ok(String::new())
}

/// Every set of features builds by itself.
pub(super) fn hack() -> anyhow::Result<String> {
    if !shell::is_installed("cargo-hack") {
        return skipped("cargo-hack");
    }
    let mut hack = shell::cargo();
    hack.args(["hack", "check", "--quiet", "--feature-powerset", "--locked"]);
    hack.args(LIBRARIES.iter().flat_map(|library| ["--package", library]));
    shell::run(&mut hack)?;
    Ok(String::new())
}
