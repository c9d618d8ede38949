//! The daemon's NBD side: against a client of our own, hostile clients, and the tools that people use.

use std::path::{Path, PathBuf};

use crate::daemon::Daemon;

pub(crate) mod client;
mod control;
mod hostile;
mod images;
mod operation;
mod serving;
mod tools;

/// A daemon with one export of this disk, which is also served over NBD under the name `disk`.
fn start(disk: &str, args: &[&str]) -> (Daemon, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let nbd = path.display().to_string();
    let args = [&["--nbd", &nbd], args].concat();
    let daemon = Daemon::start_in(directory, &format!("{disk},name=disk"), &args);
    (daemon, path)
}

/// The address of a tool for the export `disk`.
fn uri(path: &Path) -> String {
    format!("nbd+unix:///disk?socket={}", path.display())
}
