//! The daemon as a process: its line `ready`, its signals, its errors.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, Indexes, Waits, pattern};

pub(crate) fn blockd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockd"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns the first line of its standard output, or an empty string if there is none.
pub(crate) fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    line
}

pub(crate) fn wait_ready(child: &mut Child) {
    if first_line(child) != "ready\n" {
        let mut log = String::new();
        child.stderr.as_mut().unwrap().read_to_string(&mut log).unwrap();
        panic!("it is not ready: {log}");
    }
}

/// Ends the daemon with SIGTERM, and checks its status.
pub(crate) fn terminate(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Starts the daemon and waits for the line `ready`.
pub(crate) fn ready(args: &[&str]) -> Child {
    let mut child = blockd(args).spawn().unwrap();
    wait_ready(&mut child);
    child
}

/// Starts the daemon with arguments that it must refuse. Returns its standard error.
pub(crate) fn complaint(args: &[&str]) -> String {
    let mut child = blockd(args).spawn().unwrap();
    let line = first_line(&mut child);
    if !line.is_empty() {
        // The daemon would run for ever.
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("{args:?} should fail, and prints {line}");
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{args:?} should fail");
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
        assert_eq!(log, "", "nothing went wrong, so nothing is logged");
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
    let child = ready(&["--export", &export]);
    assert!(complaint(&["--export", &export]).contains("already"));
    terminate(child);
}

#[test]
fn errors_name_a_remedy() {
    assert!(complaint(&[]).contains("--export"));
    assert!(complaint(&["--export", "ram=1M"]).contains("socket=PATH"));
    let backend = complaint(&["--export", "ram=1M,socket=/tmp/x", "--backend", "kqueue"]);
    assert!(
        backend.contains("possible values: auto, ppoll, epoll, uring]"),
        "{backend}"
    );
    assert!(complaint(&["--export", "ram=1M,socket=/tmp/x", "--policy", "luck"]).contains("qemu-2020"));
    assert!(complaint(&["--export", "ram=1M,socket=/tmp/x", "--poll-cpu-price", "0"]).contains("1..=10000"));
    let twice = complaint(&[
        "--export",
        "ram=1M,socket=/tmp/x",
        "--export",
        "ram=1M,socket=/tmp/x",
    ]);
    assert!(twice.contains("two exports name the socket"), "{twice}");
    let large = complaint(&["--export", "ram=16000000T,socket=/tmp/never"]);
    assert!(large.contains("smaller size"), "{large}");
}

#[test]
fn malformed_durations_are_explained() {
    for (malformed, remedy) in [
        ("32", "32us"),
        ("malformed", "32us"),
        ("-5us", "32us"),
        ("1.5us", "32us"),
        ("", "32us"),
        ("2s", "32us to 200us"),
        ("18446744073709551615s", "32us to 200us"),
    ] {
        let said = complaint(&["--export", "ram=1M,socket=/tmp/never", "--poll-max", malformed]);
        assert!(said.contains(remedy), "{malformed:?}: {said}");
    }
}

/// A path that cannot be a disk is refused at the start, with a remedy. No open waits, and no socket is left.
#[test]
fn images_that_are_none_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let socket = at("a.sock");
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("small"), [0; 511]).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    for (image, remedy) in [
        (at("missing"), "truncate -s 1G"),
        (at(""), "neither a file nor a block device; name another"),
        (at("empty"), "at least one sector"),
        (at("small"), "511 bytes"),
        (at("pipe"), "neither a file nor a block device"),
        ("/dev/null".to_owned(), "neither a file nor a block device"),
    ] {
        for readonly in ["", ",readonly"] {
            let said = complaint(&["--export", &format!("path={image},socket={socket}{readonly}")]);
            assert!(
                said.contains(&image) && said.contains(remedy.split("; ").next().unwrap()),
                "{said}"
            );
        }
    }
    assert!(!std::fs::exists(&socket).unwrap());
}

#[test]
fn sockets_that_cannot_be_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("file"), "precious").unwrap();
    for (socket, remedy) in [
        (at("file"), "exists and is not a socket"),
        (at(""), "exists and is not a socket"),
        (at("no/such/directory"), "does not exist"),
        (at(&"long".repeat(50)), "at most 107 bytes"),
    ] {
        let said = complaint(&["--export", &format!("ram=1M,socket={socket}")]);
        assert!(said.contains(remedy), "{said}");
    }
    assert_eq!(std::fs::read(at("file")).unwrap(), b"precious");
}

/// The user lacks the permission. The test is skipped for root, which has every permission.
#[test]
fn missing_rights_are_explained() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may do everything");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("image"), [0; 4096]).unwrap();
    let allow = |name: &str, mode| {
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    allow("image", 0o400);
    let said = complaint(&["--export", &format!("path={},socket={}", at("image"), at("a"))]);
    assert!(said.contains("add ',readonly'"), "{said}");
    allow("image", 0);
    let said = complaint(&[
        "--export",
        &format!("path={},socket={},readonly", at("image"), at("a")),
    ]);
    assert!(said.contains("check that you may read it"), "{said}");
    allow("", 0o500);
    let said = complaint(&["--export", &format!("ram=1M,socket={}", at("a"))]);
    allow("", 0o700);
    assert!(said.contains("may not write to its directory"), "{said}");
}

#[test]
fn a_log_level_that_is_none_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let export = format!("ram=1M,socket={}", directory.path().join("a").display());
    let mut child = blockd(&["--export", &export])
        .env("BLOCKD_LOG", "a=b=c")
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("use error, warn, info"), "{line}");
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
