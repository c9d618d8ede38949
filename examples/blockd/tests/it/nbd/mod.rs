//! The NBD side of the daemon, with a client of our own, hostile clients, and common tools.

use std::path::{Path, PathBuf};

use crate::daemon::Daemon;

pub(crate) mod client;
mod control;
mod hostile;
mod images;
mod operation;
mod serving;
mod tools;

/// Starts a daemon with one export of this disk, which is also served over NBD under the name `disk`.
fn start(disk: &str, args: &[&str]) -> (Daemon, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let nbd = path.display().to_string();
    let args = [&["--nbd", &nbd], args].concat();
    let daemon = Daemon::start_in(directory, &format!("{disk},name=disk"), &args);
    (daemon, path)
}

/// Returns the address of the export `disk`, for a tool.
fn uri(path: &Path) -> String {
    format!("nbd+unix:///disk?socket={}", path.display())
}
