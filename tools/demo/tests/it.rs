//! The whole program: it refuses to measure without optimization, its client checks the data of both daemons,
//! and Ctrl-C leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use aio_tools::{build, shell};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

fn demo() -> Command {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_aio-demo"));
    demo.stdin(Stdio::null());
    demo
}

/// Returns blockd, built with the profile of the tests. If all tests of the workspace run, it exists already.
fn blockd() -> PathBuf {
    shell::beside(Path::new(env!("CARGO_BIN_EXE_aio-demo")), "blockd").unwrap()
}

#[test]
fn an_unoptimized_build_refuses_to_report() {
    if build::is_optimized() {
        println!("skipped: this build is optimized");
        return;
    }
    let output = demo()
        .args(["--quick", "--only", "such a run is not there"])
        .output()
        .unwrap();
    let said = shell::text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("run `cargo xtask demo`"), "{said}");
    assert!(!said.contains("IOPS"), "{said}");
}

#[test]
fn a_wrong_argument_is_refused_before_anything_is_built() {
    for (option, wrong) in [
        ("--idle-queues", "0"),
        ("--depth", "0"),
        ("--depth", "1000"),
        ("--think-us", "-1"),
    ] {
        let output = demo().arg(format!("{option}={wrong}")).output().unwrap();
        let said = shell::text(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(option) && !said.contains("building"), "{said}");
    }
}

#[test]
fn the_client_checks_the_data_of_blockd() {
    let output = demo()
        .arg("--drive")
        .arg(blockd())
        .args(["--seconds", "1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shell::text(&output));
    assert!(
        shell::text(&output).contains(" requests, every byte verified"),
        "{}",
        shell::text(&output)
    );
}

#[test]
fn the_client_checks_the_same_contents_of_the_other_daemon() {
    if !shell::is_installed("qemu-storage-daemon") {
        println!("skipped: qemu-storage-daemon is not installed");
        return;
    }
    let output = demo().args(["--drive-peer", "--seconds", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", shell::text(&output));
    assert!(
        shell::text(&output).contains(" requests, every byte verified"),
        "{}",
        shell::text(&output)
    );
}

/// Waits until the directory has an entry that `is_wanted`, and returns it.
fn wait_for_entry(directory: &Path, is_wanted: impl Fn(&Path) -> bool) -> PathBuf {
    const MINUTE: Timespec = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    let changes = inotify::init(CreateFlags::CLOEXEC).unwrap();
    let kinds = WatchFlags::CREATE | WatchFlags::MOVED_TO;
    inotify::add_watch(&changes, directory, kinds).unwrap();
    loop {
        let entries = std::fs::read_dir(directory).unwrap();
        if let Some(found) = entries
            .map(|entry| entry.unwrap().path())
            .find(|path| is_wanted(path))
        {
            return found;
        }
        let ready = poll(&mut [PollFd::new(&changes, PollFlags::IN)], Some(&MINUTE)).unwrap();
        assert_eq!(ready, 1, "nothing in {} after a minute", directory.display());
        rustix::io::read(&changes, &mut [0; 4096]).unwrap();
    }
}

fn child_of(parent: &Child) -> Option<Pid> {
    let pid = parent.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

#[test]
fn ctrl_c_stops_the_daemon_and_removes_its_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = demo()
        .arg("--drive")
        .arg(blockd())
        .args(["--seconds", "1000"])
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The daemon makes its socket in the directory that the program has made.
    let sockets = wait_for_entry(directory.path(), Path::is_dir);
    wait_for_entry(&sockets, |path| path.ends_with("busy.sock"));
    let daemon = child_of(&demo).unwrap();
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert!(test_kill_process(daemon).is_err(), "the daemon is still there");
    let mut left = std::fs::read_dir(directory.path()).unwrap();
    assert!(
        left.next().is_none(),
        "something was left in the temporary directory"
    );
}
