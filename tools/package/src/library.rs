//! [`Library`]: a crate to be published.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aio_tools::shell;
use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The library that is a workspace of its own, because the crate `glib` cannot be built where GLib is not installed.
pub(crate) const APART: &str = "aio-glib";

/// A crate to be published.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) directory: PathBuf,
    /// The entry of `cargo metadata` for it.
    pub(crate) package: Value,
}

impl Library {
    /// Returns the library if the package is to be published.
    fn of(package: &Value) -> Option<Self> {
        if !package["publish"].is_null() {
            return None;
        }
        Some(Self {
            name: package["name"].as_str()?.to_owned(),
            version: package["version"].as_str()?.to_owned(),
            directory: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
            package: package.clone(),
        })
    }

    /// Returns the directory of the unpacked package.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Returns the name in source code.
    pub(crate) fn ident(&self) -> String {
        self.name.replace('-', "_")
    }

    pub(crate) fn is_apart(&self) -> bool {
        self.name == APART
    }

    /// Returns a command for the cargo that builds it in its workspace.
    pub(crate) fn cargo(&self) -> Command {
        shell::cargo_in(if self.is_apart() { APART } else { "" })
    }

    pub(crate) fn readme(&self) -> anyhow::Result<String> {
        let file = self.directory.join("README.md");
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }
}

/// Returns the libraries of the workspace, and the one that is apart.
pub(crate) fn all() -> anyhow::Result<Vec<Library>> {
    let mut libraries = Vec::new();
    let apart = format!("{APART}/Cargo.toml");
    for more in [&["--no-deps"][..], &["--no-deps", "--manifest-path", &apart]] {
        let metadata = shell::metadata(more)?;
        let packages = metadata["packages"].as_array();
        let packages = packages.context("cargo metadata lists no packages")?;
        libraries.extend(packages.iter().filter_map(Library::of));
    }
    libraries.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(
        libraries.iter().any(Library::is_apart),
        "no package is to be published but those of the workspace"
    );
    Ok(libraries)
}

/// Returns the reason why `library` cannot be built here, if there is one.
pub(crate) fn lacks(library: &Library) -> Option<&'static str> {
    if !library.is_apart() {
        return None;
    }
    let mut asks = Command::new("pkg-config");
    asks.args(["--exists", "glib-2.0 >= 2.72", "gobject-2.0", "gio-2.0"]);
    let found = asks.stdin(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    (!is_there).then_some("aio-glib needs pkg-config and GLib 2.72 or later: install libglib2.0-dev")
}
