//! Tests of images, run again with another engine than the default; and tests of the ring itself.

use std::process::Command;

use crate::client::{Client, pattern};
use crate::daemon::Daemon;
use crate::process::ready;

/// The variable that names the engine of daemons whose test names none.
pub(crate) const VARIABLE: &str = "BLOCKD_TEST_ENGINE";

/// Returns `true` if a daemon can execute requests on a ring here; otherwise prints a `skipped` line.
pub(crate) fn has_ring() -> bool {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let daemon = Daemon::start(
        &format!("path={}", image.path().display()),
        &["--engine", "uring"],
    );
    let log = daemon.stop();
    if !log.is_empty() {
        println!("skipped: {log}");
    }
    log.is_empty()
}

/// Runs tests whose names contain one of `names` with the ring, but not those that contain one of `others`.
fn run_on_ring(names: &[&str], others: &[&str]) {
    if std::env::var_os(VARIABLE).is_none() && has_ring() {
        run_with("uring", names, others);
    }
}

/// Runs tests whose names contain one of `names` with an engine, but not those that contain one of `others`.
fn run_with(engine: &str, names: &[&str], others: &[&str]) {
    let passed = run_again((VARIABLE, engine), names, others);
    println!("{passed} tests passed with the engine {engine}");
}

/// Runs tests whose names contain one of `names` in another process with a variable, but not those that
/// contain one of `others`. Returns the number of tests that have passed.
pub(crate) fn run_again((variable, value): (&str, &str), names: &[&str], others: &[&str]) -> usize {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    for other in others {
        tests.args(["--skip", other]);
    }
    // The tests run one at a time, because a process that another test starts keeps the sockets of this one
    // open for a moment.
    tests.arg("--test-threads=1");
    let output = tests.args(names).env(variable, value).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let passed = text.matches("... ok").count();
    assert!(passed >= names.len(), "{text}");
    passed
}

/// Tests of errors, sizes, locks and slow file systems. The excluded tests make a system call fail or last
/// that the ring does not make.
#[test]
fn s1_the_tests_of_images_pass_on_the_ring() {
    let calls = [
        "c8_sigterm_ends_a_daemon_whose_image_hangs",
        "c8_what_cannot_be_read_at_once",
        "c13_steps",
    ];
    run_on_ring(&["images::"], &calls);
}

/// Tests with the engine of a system without io_uring.
#[test]
fn s2_the_tests_of_images_pass_on_threads() {
    if std::env::var_os(VARIABLE).is_none() {
        run_with(
            "threads",
            &["images::", "c06_outstanding::", "c06_in_flight::"],
            &["c13_steps"],
        );
    }
}

#[test]
fn c6_requests_on_the_ring_are_completed_by_the_next_daemon() {
    let names = [
        "c06_outstanding::c6_for_a_client",
        "again_and_again",
        "c06_in_flight::",
    ];
    run_on_ring(&names, &[]);
}

#[test]
fn case_15_a_client_is_killed_while_the_ring_writes() {
    run_on_ring(&["killed::case_15"], &[]);
}

/// Without a ring, threads execute the requests, and one warning reports that.
#[test]
fn s2_without_a_ring_threads_execute_requests() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let disk = format!("path={}", image.path().display());
    let daemon = Daemon::start(&disk, &["--engine", "uring", "--backend", "epoll"]);
    let mut client = Client::simple(daemon.socket());
    client.write(0, 4096, &pattern(5, 64 * 1024)).unwrap();
    assert_eq!(client.read(0, 4096, 64 * 1024).unwrap(), pattern(5, 64 * 1024));
    client.flush(0).unwrap();
    drop(client);
    let log = daemon.stop();
    assert_eq!(log.lines().count(), 1, "{log}");
    for part in ["the loop uses epoll", "--backend uring", "--engine threads"] {
        assert!(log.contains(part), "{part} in {log}");
    }
}

/// The default engine uses the ring if there is one. A line of the level "info" names the executors of
/// requests.
#[test]
fn s2_the_default_engine_takes_the_ring_or_threads() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let disk = format!("path={}", image.path().display());
    let run = |command: Command| {
        let directory = tempfile::tempdir().unwrap();
        let mut command = command;
        command.env("BLOCKD_LOG", "info");
        let daemon = Daemon::start_by(command, directory, &disk, &["--engine", "auto"]);
        let mut client = Client::simple(daemon.socket());
        client.write(0, 4096, &pattern(6, 64 * 1024)).unwrap();
        assert_eq!(client.read(0, 4096, 64 * 1024).unwrap(), pattern(6, 64 * 1024));
        client.flush(0).unwrap();
        drop(client);
        daemon.stop()
    };
    if has_ring() {
        let log = run(Command::new(env!("CARGO_BIN_EXE_blockd")));
        assert!(log.contains("and the loop's io_uring"), "{log}");
        assert!(!log.contains("WARN"), "{log}");
    }
    // The system forbids io_uring.
    let Some(mut strace) = crate::images::tool("strace") else {
        return;
    };
    strace.args(["-D", "-f", "-q", "-o", "/dev/null"]);
    strace.args([
        "-e",
        "inject=io_uring_setup:error=EPERM",
        env!("CARGO_BIN_EXE_blockd"),
    ]);
    let log = run(strace);
    assert!(log.contains("reads of the page cache, and threads"), "{log}");
    assert!(
        log.contains("io_uring is not available") && !log.contains("WARN"),
        "{log}"
    );
}

/// Many requests at a time, of all kinds, from several queues, with and without polling.
#[test]
fn s1_many_requests_on_the_ring() {
    if !has_ring() {
        return;
    }
    for polling in ["0", "50us"] {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let socket = directory.path().join("a.sock");
        let export = format!("path={},socket={}", image.display(), socket.display());
        let mut daemon = ready(&["--export", &export, "--engine", "uring", "--poll-max", polling]);
        let mut client = Client::simple(&socket);
        for round in 0..20_u64 {
            for slot in 0..8_usize {
                let at = (slot as u64) << 20;
                client.start_write(0, slot, at, &pattern(round * 8 + slot as u64, 4096));
            }
            for _ in 0..8 {
                assert_eq!(client.next_done(0).1, 0);
            }
            client.flush(0).unwrap();
            for slot in 0..8_u64 {
                let read = client.read(0, slot << 20, 4096).unwrap();
                assert_eq!(read, pattern(round * 8 + slot, 4096), "{round} {slot}");
            }
            client.write_zeroes(0, 0, 8 << 20, round % 2 == 0).unwrap();
            assert_eq!(client.read(0, 3 << 20, 4096).unwrap(), [0; 4096]);
            client.discard(0, 0, 8 << 20).unwrap();
        }
        drop(client);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
}
