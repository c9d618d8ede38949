//! `aio-glib` is a workspace of its own, because the crate `glib` cannot be built where GLib is not
//! installed. The tasks include it where GLib is installed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::shell;

/// The directory of the workspace.
pub(crate) const WORKSPACE: &str = "aio-glib";
/// The libraries that the crate and its tests link with.
const LIBRARIES: [&str; 3] = ["glib-2.0 >= 2.72", "gobject-2.0", "gio-2.0"];

/// Returns the reason why it cannot be built here, if there is one.
pub(crate) fn lacks() -> Option<&'static str> {
    let mut asks = Command::new("pkg-config");
    asks.arg("--exists").args(LIBRARIES);
    let found = asks.stdin(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    (!is_there).then_some(
        "aio-glib needs pkg-config and GLib 2.72 or later: install libglib2.0-dev (Fedora: glib2-devel)",
    )
}

/// Returns the cargo that builds it.
pub(crate) fn cargo(task: &[&str]) -> anyhow::Result<Command> {
    let mut cargo = shell::cargo_in(WORKSPACE);
    cargo
        .args(task)
        .args(["--locked", "--target-dir"])
        .arg(target_dir()?);
    Ok(cargo)
}

fn target_dir() -> anyhow::Result<PathBuf> {
    Ok(shell::target_dir()?.join("glib"))
}
