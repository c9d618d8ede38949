//! Makes the packages.

use std::fs;
use std::time::Duration;

use aio_tools::interrupt::Interrupt;
use aio_tools::shell;
use anyhow::Context as _;
use serde::Serialize;

use crate::library::Library;

/// The time after which a step counts as hung.
pub(crate) const LIMIT: Duration = Duration::from_secs(30 * 60);

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
        // Without this option cargo also builds the packages; `--check` does so with their tests. No library
        // contains a lock file.
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
