//! The daemon as a process: its one line, its signals, its errors.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, Indexes, Waits, pattern};

fn blockd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockd"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts it and waits for the line that says it is ready.
fn ready(args: &[&str]) -> Child {
    let mut child = blockd(args).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn complaint(args: &[&str]) -> String {
    let output = blockd(args).output().unwrap();
    assert!(!output.status.success(), "{args:?} should fail");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn signals_end_it_and_remove_the_sockets() {
    for signal in [Signal::TERM, Signal::INT] {
        let directory = tempfile::tempdir().unwrap();
        let sockets = ["a", "b"].map(|name| directory.path().join(name));
        let exports = sockets
            .each_ref()
            .map(|socket| format!("ram=1M,socket={},queues=2", socket.display()));
        let mut child = ready(&[
            "--export",
            &exports[0],
            "--poll-max",
            "32us",
            "--export",
            &exports[1],
        ]);
        let mut client = Client::connect(&sockets[0], 2, Indexes::With, Waits::ForEvents);
        client.write(1, 0, &pattern(1, 4096)).unwrap();
        assert_eq!(client.read(0, 0, 4096).unwrap(), pattern(1, 4096));
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut log = String::new();
        child.stderr.unwrap().read_to_string(&mut log).unwrap();
        assert_eq!(log, "", "nothing went wrong, so nothing is said");
    }
}

#[test]
fn a_killed_daemon_leaves_a_socket_that_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a");
    let export = format!("ram=1M,socket={}", socket.display());
    let mut child = ready(&["--export", &export]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(socket.exists());
    let mut child = ready(&["--export", &export]);
    assert!(complaint(&["--export", &export]).contains("already"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn errors_say_what_to_do() {
    assert!(complaint(&[]).contains("--export"));
    assert!(complaint(&["--export", "ram=1M"]).contains("socket=PATH"));
    let missing = complaint(&["--export", "path=/no/such/file,socket=/tmp/never"]);
    assert!(
        missing.contains("/no/such/file") && missing.contains("readonly"),
        "{missing}"
    );
    assert!(complaint(&["--export", "ram=1M,socket=/no/such/directory/a"]).contains("directory"));
    assert!(complaint(&["--export", "ram=1M,socket=/tmp/x", "--backend", "uring"]).contains("not built yet"));
    assert!(complaint(&["--export", "ram=1M,socket=/tmp/x", "--poll-max", "32"]).contains("32us"));
    assert!(complaint(&["--export", "ram=1M,socket=/tmp/x", "--policy", "luck"]).contains("qemu-2020"));
}

#[test]
fn help_is_for_strangers() {
    let output = blockd(&["--help"]).output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for word in [
        "--export",
        "path=FILE",
        "ram=SIZE",
        "socket=PATH",
        "--poll-max",
        "ready",
        "SIGTERM",
        "Examples:",
    ] {
        assert!(help.contains(word), "{word} is missing in:\n{help}");
    }
}
