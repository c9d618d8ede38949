//! Tests that need a process to themselves: they close numbers, lower limits, catch signals, or count open descriptors.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use crate::common::Bench;

/// The variable that passes the set-up to a child.
const CHILD: &str = "AIO_HOSTILE_CHILD";

/// Runs the body of `test` in a process of its own for each set-up. `test` is the whole name of the calling test, which the child
/// runs.
pub(crate) fn each_in_a_process(test: &str, body: impl Fn(Bench)) {
    if let Ok(child) = std::env::var(CHILD) {
        let bench = Bench::ALL.into_iter().find(|bench| bench.name == child);
        return body(bench.unwrap());
    }
    for Bench { name, .. } in Bench::ALL {
        let (status, said) = run(test, name);
        assert!(status.success(), "{test} on {name}: {status}\n{said}");
    }
}

/// As [`each_in_a_process`], for a test without set-ups.
pub(crate) fn in_a_process(test: &str, body: impl Fn()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let (status, said) = run(test, "it");
    assert!(status.success(), "{test}: {status}\n{said}");
}

/// As [`in_a_process`], for a body that ends the process by a signal. Returns the signal.
pub(crate) fn to_its_death(test: &str, body: impl Fn()) -> Option<i32> {
    if std::env::var_os(CHILD).is_some() {
        body();
        // The parent expects a signal, so this status is a failure.
        std::process::exit(0);
    }
    run(test, "it").0.signal()
}

fn run(test: &str, child: &str) -> (ExitStatus, String) {
    // In the harness, the name of a test is its path without the crate.
    let name = test.split_once("::").map_or(test, |(_, name)| name);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .env(CHILD, child)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("running 1 test"), "there is no test {name}: {said}");
    (output.status, said)
}
