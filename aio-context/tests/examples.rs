//! The examples end by themselves and print the expected lines, also if the system refuses a call.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use aio_context::BackendKind;

/// The examples of foreign loops, and their output.
const FOREIGN: [(&str, &str); 4] = [
    (
        "in_epoll_loop",
        "the echo came back: ping\n3 ticks, slept on one descriptor (epoll)\n",
    ),
    (
        "in_tokio",
        "echoed by a context inside tokio: ping\nat least 3 ticks, on epoll\n",
    ),
    ("in_calloop", "a context inside calloop echoed ping, on epoll\n"),
    (
        "in_mio",
        "a context inside mio echoed ping, and ticked 3 times, on epoll\n",
    ),
];

fn example(name: &str) -> PathBuf {
    let foreign = FOREIGN.iter().map(|(name, _)| *name);
    let names: Vec<_> = foreign.chain(["first_steps", "many_descriptors"]).collect();
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

/// Starts an example whose contexts begin on this backend.
fn on(kind: BackendKind, name: &str) -> String {
    let (said, warned) = run(Command::new(example(name)).env("AIO_BACKEND", kind.name()));
    assert_eq!(warned, "", "{name} on {kind}");
    said
}

#[test]
fn g2_g4_a_context_in_foreign_loops_on_every_backend() {
    for (name, expected) in FOREIGN {
        for kind in BackendKind::ALL {
            assert_eq!(on(kind, name), expected, "{name} on {kind}");
        }
    }
}

#[test]
fn first_steps_on_every_backend() {
    for kind in BackendKind::ALL {
        assert_eq!(
            on(kind, "first_steps"),
            "sent by another thread, run by this one\nreceived ping\nthe bottom half runs\n",
            "{kind}"
        );
    }
}

/// Examples stay short.
#[test]
fn g4_an_example_has_less_than_100_lines() {
    aio_testing::examples::are_short(env!("CARGO_MANIFEST_DIR"));
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

/// Returns `true` if `strace` can make system calls fail here.
fn strace_works() -> bool {
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"])
        .stdin(Stdio::null())
        .output();
    tried.is_ok_and(|output| output.status.success())
}

/// The errors that the system can return from these calls, at the first or at a later one.
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
        // The call is not tried again. Only the roll-back may repeat it.
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
