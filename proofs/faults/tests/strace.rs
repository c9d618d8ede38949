//! The same from outside: strace makes the system calls of a process fail, including those of the eventfd,
//! which no seam covers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const PROGRAM: &str = env!("CARGO_BIN_EXE_aio-faults");
/// The time after which a run counts as hung.
const LONGEST: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};
/// The highest number of a call that a fault is injected into.
const DEEPEST: u32 = 8;

struct Run {
    text: String,
    trace: String,
    whole: bool,
}

fn run(strace: &[&str], work: &str, trace: &Path) -> Run {
    let mut child = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(trace)
        .args(strace)
        .args([PROGRAM, "--work", work])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&LONGEST)).unwrap();
    if ended == 0 {
        child.kill().unwrap();
        panic!("{work} with {strace:?} hangs");
    }
    let output = child.wait_with_output().unwrap();
    Run {
        text: String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        trace: std::fs::read_to_string(trace).unwrap_or_default(),
        whole: output.status.success(),
    }
}

/// Returns the number of calls of this name in a process that does no work: those of the loader and the
/// runtime.
fn beforehand(call: &str, trace: &Path) -> u32 {
    let run = run(&["-e", &format!("trace={call}")], "nothing", trace);
    run.trace.matches(&format!(" {call}(")).count() as u32
}

#[test]
fn b4_all_work_is_done_with_failures_by_strace() {
    let directory = std::env::temp_dir().join(format!("aio-faults-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let trace = directory.join("trace");
    let usable = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "inject=epoll_wait:error=EINTR:when=1",
            PROGRAM,
            "--work",
            "nothing",
        ])
        .status();
    if !usable.is_ok_and(|status| status.success()) {
        println!("skipped: strace is not installed, or may not trace");
        return;
    }
    // The possible errors of a call, injected into its calls one after the other, and storms.
    let single = [
        (
            "epoll_create1",
            "EMFILE ENFILE ENOMEM ENOSYS EPERM",
            "ladder-0 ladder-4",
        ),
        ("epoll_ctl", "ENOSPC ENOMEM", "ladder-0 ladder-4 epoll"),
        ("epoll_wait", "EINTR EBADF", "ladder-0 epoll"),
        ("io_uring_setup", "EPERM ENOSYS ENOMEM EMFILE", "ladder-uring"),
        (
            "io_uring_enter",
            "EINTR EAGAIN EBUSY ENOMEM",
            "uring ladder-uring",
        ),
        ("io_uring_enter", "EBADF", "ladder-uring"),
        ("poll", "EINTR", "ppoll"),
        ("ppoll", "EINTR ENOMEM", "ppoll ladder-0"),
        ("eventfd2", "EMFILE ENFILE ENOMEM ENODEV", "ppoll ladder-4"),
        ("read", "EINTR", "ladder-0"),
        ("write", "EINTR", "ladder-0"),
    ];
    let (mut runs, mut injected) = (0, 0);
    let mut expect = |inject: &str, work: &str| {
        let run = run(&["-e", inject], work, &trace);
        let met = run.trace.matches("(INJECTED)").count();
        (runs, injected) = (runs + 1, injected + met);
        let explained = !run.text.contains("none is known");
        assert!(run.whole && explained, "{work} with {inject}: {}", run.text);
        met
    };
    for (call, errors, works) in single {
        let first = beforehand(call, &trace);
        for (error, work) in errors
            .split(' ')
            .flat_map(|error| works.split(' ').map(move |work| (error, work)))
        {
            for number in 1..=DEEPEST {
                let inject = format!("inject={call}:error={error}:when={}", first + number);
                if expect(&inject, work) == 0 {
                    break;
                }
            }
        }
    }
    for (what, work) in [
        ("inject=epoll_wait:error=EINTR:when=1+2", "ladder-0"),
        ("inject=ppoll:error=EINTR:when=1+2", "ppoll"),
        ("inject=epoll_wait:retval=0:when=1+2", "epoll"),
        ("inject=epoll_wait:signal=SIGWINCH:when=1+2", "ladder-4"),
        ("inject=epoll_wait:delay_exit=300", "ladder-0"),
        ("inject=epoll_ctl:delay_enter=300", "ladder-0"),
    ] {
        let _ = expect(what, work);
    }
    // The loader makes calls of these kinds, too, so every second call fails from the program's first one on.
    for call in ["read", "write"] {
        let inject = format!(
            "inject={call}:error=EINTR:when={}+2",
            beforehand(call, &trace) + 1
        );
        assert!(expect(&inject, "ladder-0") > 0, "{inject}");
    }
    println!("{runs} runs under strace, {injected} injections");
    assert!(injected > 60, "{injected}");
    std::fs::remove_dir_all(&directory).unwrap();
}

/// With fewer and fewer descriptors, either all work is done, or an error names the missing part.
#[test]
fn b4_a_process_without_descriptors_names_a_remedy() {
    let mut whole = 0;
    for limit in 4..=24 {
        let limit = format!("--nofile={limit}:{limit}");
        let ran = Command::new("prlimit")
            .args([&limit, PROGRAM, "--work", "ladder-4"])
            .output();
        let Ok(output) = ran else {
            println!("skipped: prlimit is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code().is_some(), "{limit}: {output:?}");
        let is_said = text.contains("Too many open files");
        assert!(output.status.success() || is_said, "{limit}: {text}");
        whole += u32::from(output.status.success());
    }
    assert!(whole > 0, "some limit is enough");
}
