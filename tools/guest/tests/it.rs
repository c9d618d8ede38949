//! The whole program: one guest in its shortest form, a daemon that loses writes, and missing packages.
//!
//! The guests need QEMU, a kernel and busybox: `cargo xtask guest --fetch`. Without them the tests print a
//! line that begins with `skipped`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use aio_tools::shell;
use rustix::process::{Pid, Signal, kill_process};

fn guest() -> Command {
    let mut guest = Command::new(env!("CARGO_BIN_EXE_aio-guest"));
    guest.stdin(Stdio::null());
    guest
}

/// Returns blockd, built with the profile of the tests. If all tests of the workspace run, it exists already.
fn blockd() -> PathBuf {
    shell::beside(Path::new(env!("CARGO_BIN_EXE_aio-guest")), "blockd").unwrap()
}

/// Runs one guest on a daemon. If that is impossible, it prints the reason and returns `None`.
fn short(blockd: &Path, more: &[&str]) -> Option<Output> {
    let output = guest()
        .args(["--short", "--blockd"])
        .arg(blockd)
        .args(more)
        .output()
        .unwrap();
    let said = shell::text(&output);
    let skipped = said.lines().find(|line| line.starts_with("skipped: "));
    println!("{}", skipped.unwrap_or(&said));
    skipped.is_none().then_some(output)
}

#[test]
fn a_guest_passes_every_step() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("rows.json");
    let json = json.display().to_string();
    let Some(output) = short(&blockd(), &["--json", &json]) else {
        return;
    };
    assert!(output.status.success());
    let rows: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let rows = rows["rows"].as_array().unwrap();
    let steps: Vec<&str> = rows.iter().map(|row| row["step"].as_str().unwrap()).collect();
    for step in [
        "boot", "pattern", "resize", "hot plug", "fstrim", "kill -9", "reboot", "e2fsck",
    ] {
        assert!(steps.contains(&step), "{step} is missing in {steps:?}");
    }
    assert!(rows.iter().all(|row| row["ok"] == true));
}

/// If a daemon ignores all writes, its guest fails, and the error names the fault.
#[test]
fn a_daemon_that_loses_writes_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let faulty = directory.path().join("blockd");
    let script = format!(
        "#!/bin/sh\nfor arg; do shift; set -- \"$@\" \"$(echo \"$arg\" | sed 's/path=[^,]*/null=256M/')\"; done\nexec {} \"$@\"\n",
        blockd().display()
    );
    std::fs::write(&faulty, script).unwrap();
    std::fs::set_permissions(&faulty, std::fs::Permissions::from_mode(0o755)).unwrap();
    let Some(output) = short(&faulty, &[]) else { return };
    let said = shell::text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("pattern") && said.contains("is not what the guest has written"),
        "{said}"
    );
    // The failure explains itself.
    for queue in 0..4 {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("queue {queue}: ")));
        assert!(line.unwrap().ends_with(" 0 missing"), "{said}");
    }
    let kept = said
        .lines()
        .find_map(|line| line.strip_prefix("the state of blockd and QEMU is kept in "));
    let kept = Path::new(kept.unwrap());
    let of = |name: &str| std::fs::read_to_string(kept.join(name)).unwrap();
    let list = of("list");
    assert!(list.contains("connected") && list.contains("4 of "), "{list}");
    assert!(of("stats").contains("disk"));
    assert!(of("threads-blockd").contains("wchan: ") && of("threads-qemu").contains("wchan: "));
}

/// Ctrl-C ends QEMU and the daemon, and no file is left.
#[test]
fn ctrl_c_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = guest()
        .args(["--short", "--blockd"])
        .arg(blockd())
        .env("TMPDIR", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The line of the first step, so the guest runs.
    let line = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.starts_with("skipped: ") || line.starts_with("  boot "))
        .unwrap();
    if line.starts_with("skipped: ") {
        println!("{line}");
        child.wait().unwrap();
        return;
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    for line in lines {
        println!("{}", line.unwrap());
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let named = directory.path().display().to_string();
    for process in std::fs::read_dir("/proc").unwrap() {
        let command = std::fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        assert!(!command.contains(&named), "{command} is left");
    }
}

#[test]
fn a_missing_qemu_is_explained() {
    let output = guest().args(["--qemu", "/no/such/qemu"]).output().unwrap();
    let said = shell::text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("--qemu /no/such/qemu: there is no such file"),
        "{said}"
    );
}
