//! The reports of the daemon about itself: statistics, the page for Prometheus, and the summary at the end.

use std::process::Command;

use serde_json::{Value, json};

use crate::control::Controlled;
use crate::daemon::Daemon;

mod page;
mod stats;
mod watch;

/// Returns the figures of the only export.
fn export(controlled: &Controlled) -> Value {
    controlled.tell(&json!({"command": "stats"}))["exports"][0].clone()
}

/// Returns the figures of its queue 0.
fn queue(controlled: &Controlled) -> Value {
    export(controlled)["queues"][0].clone()
}

#[test]
fn a_summary_of_each_export_is_logged_at_the_end() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockd"));
    command.env("BLOCKD_LOG", "info");
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_by(command, directory, "ram=1M,name=disk", &[]);
    daemon.serves();
    let log = daemon.stop();
    let summary = log.lines().find(|line| line.contains("summary")).unwrap();
    for part in [
        "export=\"disk\"",
        "clients=1",
        "requests=2",
        "bytes_read=512",
        "bytes_written=512",
        "errors=0",
    ] {
        assert!(summary.contains(part), "{part}: {summary}");
    }
}
