//! The examples end by themselves and print the expected lines, also if the system refuses a call.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn example(name: &str) -> PathBuf {
    let names = ["in_epoll_loop", "in_tokio", "many_descriptors"];
    aio_testing::examples::folder(env!("CARGO_PKG_NAME"), &names).join(name)
}

/// Runs a command to its end and returns its output on stdout and stderr.
fn run(command: &mut Command) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    (stdout, stderr)
}

#[test]
fn g2_in_epoll_loop() {
    let (said, _) = run(&mut Command::new(example("in_epoll_loop")));
    assert_eq!(
        said,
        "the echo came back: ping\n3 ticks, slept on one descriptor (epoll)\n"
    );
}

#[test]
fn g2_in_tokio() {
    let (said, _) = run(&mut Command::new(example("in_tokio")));
    assert_eq!(
        said,
        "echoed by a context inside tokio: ping\nat least 3 ticks, on epoll\n"
    );
}

#[test]
fn b3_many_descriptors() {
    for (arguments, expected) in [
        (["10", "5"], "served 50 events of 10 descriptors on ppoll\n"),
        (["100", "10"], "served 1000 events of 100 descriptors on epoll\n"),
        (["500", "2"], "served 1000 events of 500 descriptors on epoll\n"),
    ] {
        let said = run(Command::new(example("many_descriptors")).args(arguments));
        assert_eq!(said, (expected.to_owned(), String::new()));
    }
}

/// Whether system calls can be made to fail here.
fn strace_works() -> bool {
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"])
        .stdin(Stdio::null())
        .output();
    tried.is_ok_and(|output| output.status.success())
}

/// What the system may really say to these calls, at the first or at a later one.
#[test]
fn b4_one_warning_and_the_loop_goes_on_when_the_system_refuses_epoll() {
    if !strace_works() {
        println!("skipped: strace is not installed, or may not trace here");
        return;
    }
    let program = example("many_descriptors");
    let log = tempfile::NamedTempFile::new().unwrap();
    for (call, error, when, warning) in [
        ("epoll_create1", "EMFILE", "1+", "Too many open files"),
        ("epoll_create1", "ENFILE", "1+", "Too many open files in system"),
        ("epoll_create1", "ENOMEM", "1+", "Cannot allocate memory"),
        ("epoll_ctl", "ENOSPC", "1+", "No space left on device"),
        ("epoll_ctl", "ENOSPC", "1", "No space left on device"),
        ("epoll_ctl", "ENOSPC", "80", "No space left on device"),
        ("epoll_ctl", "ENOMEM", "50+", "Cannot allocate memory"),
    ] {
        let inject = format!("inject={call}:error={error}:when={when}");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(log.path());
        strace.args(["-e", &format!("trace={call}"), "-e", &inject]);
        let (said, warned) = run(strace.arg(&program));
        assert_eq!(
            said, "served 1000 events of 100 descriptors on ppoll\n",
            "{inject}"
        );
        assert_eq!(warned.lines().count(), 1, "{inject}: {warned}");
        assert!(
            warned.contains("WARN") && warned.contains(warning),
            "{inject}: {warned}"
        );
        // It is not tried again: a call that failed was the last of its kind, but for taking things back.
        let traced = std::fs::read_to_string(log.path()).unwrap();
        let refused = traced.lines().filter(|line| line.contains("(INJECTED)")).count();
        assert_eq!(refused, 1, "{inject}: {traced}");
    }
}

/// Interrupted and spurious wake-ups lose nothing.
#[test]
fn d4_interrupted_waits_lose_nothing() {
    if !strace_works() {
        println!("skipped: strace is not installed, or may not trace here");
        return;
    }
    let program = example("many_descriptors");
    for (inject, descriptors, backend) in [
        ("inject=ppoll:error=EINTR:when=1+2", "20", "ppoll"),
        (
            "inject=?epoll_wait,epoll_pwait:error=EINTR:when=1+2",
            "100",
            "epoll",
        ),
        ("inject=ppoll:retval=0:when=1+2", "20", "ppoll"),
        ("inject=?epoll_wait,epoll_pwait:retval=0:when=1+2", "100", "epoll"),
    ] {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", inject]);
        let (said, warned) = run(strace.arg(&program).arg(descriptors));
        let expected = format!("of {descriptors} descriptors on {backend}\n");
        assert!(
            said.ends_with(&expected) && warned.is_empty(),
            "{inject}: {said}{warned}"
        );
    }
}
