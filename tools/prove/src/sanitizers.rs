//! The compiler's sanitizers, which stable Rust ships behind unstable flags. Each has its own target
//! directory, and each must find a planted fault.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::at::{At, Outcome, Result, last_line, passed};
use aio_tools::shell::{self, LIBRARIES};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// The suppressions for ThreadSanitizer.
const SUPPRESSIONS: &str = "proofs/stress/suppressions.txt";
const MAY_SUPPRESS: usize = 3;

/// The messages of a sanitizer that the system prevents from working: the leak check may not trace, or memory
/// is at an address that the sanitizer needs.
const HINDERED: [&str; 2] = [
    "LeakSanitizer has encountered a fatal error",
    "unexpected memory mapping",
];

/// Tests that start cargo, require exact descriptor numbers, leak on purpose, or inspect the stack.
const NOT_ADDRESS: [&str; 12] = [
    "b6_every_fault_is_found_by_its_promise",
    "b3_many_descriptors",
    "b4_one_warning_and_the_loop_goes_on_when_the_system_refuses_epoll",
    "d4_interrupted_waits_lose_nothing",
    "g2_in_epoll_loop",
    "g2_in_tokio",
    "example_",
    "in_foreign_loops_on_every_backend",
    "in_a_context_on_every_backend",
    "first_steps_on_every_backend",
    "is_leaked_with_its_file",
    "case_12_e1_two_tasks_wake_each_other",
];

/// A sanitizer as the compiler names it, and its library.
struct Sanitizer {
    name: &'static str,
    library: &'static str,
    more: &'static str,
}

const ADDRESS: Sanitizer = Sanitizer {
    name: "address",
    library: "asan",
    more: "",
};
const THREAD: Sanitizer = Sanitizer {
    name: "thread",
    library: "tsan",
    more: "",
};
const REALTIME: Sanitizer = Sanitizer {
    name: "realtime",
    library: "rtsan",
    more: " --cfg rtsan",
};

impl Sanitizer {
    /// Returns `true` if the toolchain has it.
    fn is_there(&self) -> bool {
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
        let Ok(sysroot) = sysroot else { return false };
        let sysroot = String::from_utf8_lossy(&sysroot.stdout).into_owned();
        Path::new(sysroot.trim())
            .join(format!(
                "lib/rustlib/{TRIPLE}/lib/librustc-stable_rt.{}.a",
                self.library
            ))
            .exists()
    }

    fn skipped(&self) -> Outcome {
        Outcome::skipped(format!(
            "the toolchain has no {} sanitizer for {TRIPLE}",
            self.name
        ))
    }

    fn target_dir(&self) -> anyhow::Result<PathBuf> {
        Ok(shell::target_dir()?.join(self.library))
    }

    /// Returns a cargo with the flags of the sanitizer. The target is given explicitly, so build scripts are
    /// not instrumented.
    fn cargo(&self, does: &str, target_dir: &Path) -> Command {
        let mut cargo = shell::cargo();
        cargo
            .args([does, "--locked", "--target", TRIPLE, "--target-dir"])
            .arg(target_dir)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTC_BOOTSTRAP", "1")
            .env(
                "RUSTFLAGS",
                format!(
                    "-Zsanitizer={} -Cunsafe-allow-abi-mismatch=sanitizer{}",
                    self.name, self.more
                ),
            );
        cargo
    }

    /// Builds a program of the stress package, and returns its path.
    fn build(&self, at: &At<'_>, program: &str) -> anyhow::Result<PathBuf> {
        let directory = self.target_dir()?;
        let mut cargo = self.cargo("build", &directory);
        at.build(cargo.args(["--release", "--package", "aio-stress", "--bin", program]))?;
        Ok(directory.join(TRIPLE).join("release").join(program))
    }
}

/// Returns the reason why a sanitizer cannot work here, from the output of a program with a planted fault.
fn hindrance(said: &str) -> Option<Outcome> {
    let why = HINDERED.iter().find(|words| said.contains(**words))?;
    Some(Outcome::skipped(format!("the system does not allow it: {why}")))
}

/// Runs AddressSanitizer and the leak check on the tests of the libraries, and on threads that use every
/// wake-up path.
pub(crate) fn address(at: &At<'_>) -> Result {
    if !ADDRESS.is_there() {
        return Ok(ADDRESS.skipped());
    }
    let stress = ADDRESS.build(at, "aio-stress")?;
    if let Some(hindered) = hindrance(&at.said(Command::new(&stress).args(["--plant", "leak"]))?) {
        return Ok(hindered);
    }
    for (fault, words) in [
        ("use-after-free", "heap-use-after-free"),
        ("leak", "detected memory leaks"),
    ] {
        at.must_find(Command::new(&stress).args(["--plant", fault]), words)?;
    }
    let rounds = at.pick(20, 10_000);
    at.run(Command::new(&stress).args(["--rounds", &rounds.to_string()]))?;
    let directory = ADDRESS.target_dir()?;
    let tests = || {
        let mut tests = ADDRESS.cargo("test", &directory);
        tests.args(["--lib", "--tests", "--no-fail-fast"]);
        tests.args(LIBRARIES.iter().flat_map(|library| ["--package", library]));
        tests
    };
    let skipped: Vec<&str> = NOT_ADDRESS.iter().flat_map(|test| ["--skip", test]).collect();
    let passed = passed(&at.built_tests(tests, &skipped)?);
    ensure!(passed > 0, "no test was run");
    Ok(Outcome::Found(format!(
        "{passed} tests and {} stress rounds: 0 reports; planted: 2 of 2 found",
        9 * rounds
    )))
}

/// Runs ThreadSanitizer on threads that use every wake-up path.
pub(crate) fn thread(at: &At<'_>) -> Result {
    if !THREAD.is_there() {
        return Ok(THREAD.skipped());
    }
    let overlooked =
        suppressions(&fs::read_to_string(shell::root().join(SUPPRESSIONS)).context(SUPPRESSIONS)?);
    ensure!(
        overlooked <= MAY_SUPPRESS,
        "{SUPPRESSIONS} has {overlooked} entries, {MAY_SUPPRESS} are allowed"
    );
    let stress = THREAD.build(at, "aio-stress")?;
    let watched = || {
        let mut command = Command::new(&stress);
        command
            .current_dir(shell::root())
            .env("TSAN_OPTIONS", format!("suppressions={SUPPRESSIONS}"));
        command
    };
    if let Some(hindered) = hindrance(&at.said(watched().args(["--plant", "race"]))?) {
        return Ok(hindered);
    }
    at.must_find(watched().args(["--plant", "race"]), "data race")?;
    let said = at.run(watched().args(["--rounds", at.pick("50", "20000")]))?;
    let scenarios = said.lines().filter(|line| line.contains(" rounds in ")).count();
    Ok(Outcome::Found(format!(
        "{scenarios} scenarios: 0 reports with {overlooked} suppressions; planted: 1 of 1 found"
    )))
}

/// Returns the number of lines of a list of suppressions that are neither empty nor comments.
fn suppressions(text: &str) -> usize {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .count()
}

/// Runs RealtimeSanitizer: whole iterations allocate, free and lock nothing.
pub(crate) fn realtime(at: &At<'_>) -> Result {
    if !REALTIME.is_there() {
        return Ok(REALTIME.skipped());
    }
    let program = REALTIME.build(at, "realtime")?;
    at.must_find(Command::new(&program).arg("--plant"), "unsafe function `malloc`")?;
    let said = at.run(Command::new(&program).args(["--rounds", at.pick("200", "1750000")]))?;
    Ok(Outcome::Found(format!(
        "{}: 0 reports; planted: 1 of 1 found",
        last_line(&said)
    )))
}

/// Runs the long mixed run, without a sanitizer. Its own gauges must find the planted faults.
pub(crate) fn soak(at: &At<'_>) -> Result {
    let mut cargo = shell::cargo();
    at.build(cargo.args(["build", "--release", "--locked", "--package", "aio-soak"]))?;
    let program = shell::target_dir()?.join("release/aio-soak");
    for fault in ["memory", "descriptor", "slow"] {
        let mut planted = Command::new(&program);
        at.must_find(planted.args(["--events", "200000", "--plant", fault]), "BAD")?;
    }
    let events = at.pick("10000000", "1000000000");
    let said = at.run(Command::new(&program).args(["--events", events]))?;
    Ok(Outcome::Found(format!(
        "{}; planted: 3 of 3 found",
        last_line(&said)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sanitizer_that_may_not_work_is_skipped() {
        assert!(hindrance("==1==LeakSanitizer has encountered a fatal error.").is_some());
        assert!(hindrance("FATAL: ThreadSanitizer: unexpected memory mapping 0x5").is_some());
        assert!(hindrance("ERROR: LeakSanitizer: detected memory leaks").is_none());
    }

    #[test]
    fn suppressions_are_counted_without_remarks() {
        assert_eq!(suppressions("# why\nrace:a\n\n  race:b\n#race:c\n"), 2);
    }
}
