//! Valgrind's memcheck, with descriptors: on test programs of two libraries, and on blockd while it serves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::at::{At, Outcome, Result, last_line, passed};
use aio_tools::shell;

const VALGRIND: [&str; 6] = [
    "-q",
    "--leak-check=full",
    // The test harness leaves a block that is "possibly lost".
    "--errors-for-leak-kinds=definite",
    "--show-leak-kinds=definite",
    "--error-exitcode=9",
    "--track-fds=yes",
];
/// The libraries whose test programs are run, and their features. The test programs of other libraries wait
/// for time.
const LIBRARIES: [(&str, &[&str]); 2] = [("aio-notify", &["--features", AUXV]), ("aio-handlers", &[])];
/// Without this feature a direct system call would return a page that valgrind has hidden.
const AUXV: &str = "rustix/use-libc-auxv";

/// The function in which blockd gives descriptors to its signal handlers, as memcheck prints it.
const SIGNALS: &str = ": blockd::run (main.rs";

pub(crate) fn memcheck(at: &At<'_>) -> Result {
    let target = shell::target_dir()?.join("memcheck");
    let mut build = shell::cargo();
    build
        .args([
            "build",
            "--locked",
            "--package",
            "aio-stress",
            "--package",
            "blockd",
        ])
        .args(["--features", AUXV, "--target-dir"])
        .arg(&target);
    at.build(&mut build)?;
    let built = target.join("debug");
    let under = |program: &Path| {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(VALGRIND).arg(program);
        valgrind
    };
    let stress = built.join("aio-stress");
    for (fault, words) in [("use-after-free", "Invalid read"), ("leak", "definitely lost")] {
        at.must_find(under(&stress).args(["--plant", fault]), words)?;
    }
    let said = at.run(under(&stress).args(["--plant", "descriptor"]))?;
    ensure!(left_open(&said) > 0, "a planted descriptor was not found");
    let mut tests = 0;
    for (library, features) in LIBRARIES {
        let program = test_program(at, library, features)?;
        let said = at.run(under(&program).arg("--test-threads=1"))?;
        tests += passed(&said);
    }
    let requests = blockd(at, &built.join("blockd"))?;
    Ok(Outcome::Found(format!(
        "{tests} tests, {requests} requests to blockd: 0 errors, 0 descriptors left; planted: 3 of 3 found"
    )))
}

/// Builds the unit tests of a library, and returns their path.
fn test_program(at: &At<'_>, library: &str, features: &[&str]) -> anyhow::Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--locked", "--no-run", "--lib", "--package", library]);
    let said = at.build(cargo.args(features))?;
    let path = said
        .lines()
        .rev()
        .find_map(|line| line.split_once("(")?.1.strip_suffix(')'))
        .context("cargo did not say where the tests are")?;
    Ok(shell::root().join(path))
}

/// Reads and writes through a blockd under valgrind. Returns the number of requests.
fn blockd(at: &At<'_>, program: &Path) -> anyhow::Result<u64> {
    // This program starts blockd under valgrind, so that the demo can start, drive and stop it as usual.
    let (wrapper, log) = (at.path("blockd-under-valgrind"), at.path("memcheck-blockd.log"));
    let script = format!(
        "#!/bin/sh\nexec valgrind {} --log-file='{}' '{}' \"$@\"\n",
        VALGRIND.join(" "),
        log.display(),
        program.display()
    );
    fs::write(&wrapper, script).with_context(|| format!("cannot write {}", wrapper.display()))?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    let mut drive = shell::cargo();
    drive
        .args([
            "run",
            "--release",
            "--quiet",
            "--locked",
            "--package",
            "aio-demo",
            "--",
        ])
        .arg("--drive")
        .arg(&wrapper)
        .args(["--seconds", at.pick("5", "600")]);
    let requests = requests(&at.run(&mut drive)?)
        .context("the demo's client did not say how many requests there were")?;
    let said = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    if said.contains("Invalid ") || said.contains("definitely lost") || said.contains("uninitialised") {
        bail!("memcheck has something to say of blockd: {}", log.display());
    }
    ensure!(
        said.contains("FILE DESCRIPTORS"),
        "blockd was killed before memcheck was done: {}",
        log.display()
    );
    let open = left_open(&said);
    ensure!(
        open == 0,
        "{open} descriptors left open by blockd: {}",
        log.display()
    );
    Ok(requests)
}

/// Returns the number of requests in the last line of the demo's client.
fn requests(said: &str) -> Option<u64> {
    last_line(said).split_once(" requests")?.0.parse().ok()
}

/// Returns the number of descriptors that were open at the end, without inherited ones, and without those
/// that a signal handler keeps for the life of the process.
fn left_open(said: &str) -> usize {
    let entries = said.split("== Open ").skip(1);
    entries
        .filter(|entry| !entry.contains("<inherited from parent>") && !entry.contains(SIGNALS))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_requests_is_read() {
        assert_eq!(
            requests("building\n1234 requests, every byte verified\n"),
            Some(1234)
        );
        assert_eq!(requests("no such line"), None);
    }

    #[test]
    fn inherited_descriptors_do_not_count() {
        let text = "==1== FILE DESCRIPTORS: 3 open (2 std) at exit.\n\
                    ==1== Open file descriptor 3: /tmp/log\n==1==    <inherited from parent>\n==1== \n\
                    ==1== Open AF_UNIX socket 4: <unknown>\n==1==    at 0x1: socket\n\
                    ==1== Open AF_UNIX socket 5: <unknown>\n==1==    by 0x1: blockd::run (main.rs:34)\n";
        assert_eq!(left_open(text), 1);
        assert_eq!(left_open("==1== FILE DESCRIPTORS: 0 open (0 std) at exit.\n"), 0);
    }
}
