//! Starts other programs, with a time limit, and finds the workspace and its libraries.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::interrupt::Interrupt;

/// The libraries of this workspace.
pub const LIBRARIES: [&str; 14] = [
    "aio-backend",
    "aio-backend-epoll",
    "aio-backend-ladder",
    "aio-backend-ppoll",
    "aio-backend-uring",
    "aio-context",
    "aio-executor",
    "aio-handlers",
    "aio-metrics",
    "aio-notify",
    "aio-pollctl",
    "aio-pollset",
    "aio-sources",
    "aio-timers",
];
/// The interval at which a command with a limit is checked.
const CHECK_EVERY: Duration = Duration::from_millis(20);
/// The time that a command gets to clean up before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Returns the root of the workspace.
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}

/// Returns a command for the cargo that runs this program, in the root of the workspace.
pub fn cargo() -> Command {
    cargo_in("")
}

/// Like [`cargo`], in a directory of the workspace, such as one with a workspace of its own.
pub fn cargo_in(directory: &str) -> Command {
    let mut command = cargo_here();
    command.current_dir(root().join(directory));
    command
}

/// Like [`cargo`], in the directory where this program was started.
pub fn cargo_here() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Returns the output of `cargo metadata` for the workspace. `more` holds further arguments, such as
/// `--no-deps`.
///
/// # Errors
/// If cargo fails, or its output is not JSON.
pub fn metadata(more: &[&str]) -> anyhow::Result<serde_json::Value> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1"]).args(more);
    serde_json::from_str(&output(&mut metadata)?).context("cargo metadata printed no JSON")
}

/// Returns the files that git tracks, relative to the root of the workspace: those that match one of
/// `patterns`, or all if there are no patterns.
///
/// # Errors
/// If git fails, or a name is not UTF-8.
pub fn tracked(patterns: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "-z"]).args(patterns);
    let listed = output(&mut git)?;
    let names = listed.split('\0').filter(|name| !name.is_empty());
    Ok(names.map(PathBuf::from).collect())
}

/// Returns cargo's target directory.
///
/// # Errors
/// If cargo does not report it.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    if let Some(known) = TARGET.get() {
        return Ok(known.clone());
    }
    let metadata = metadata(&["--no-deps"])?;
    let target = metadata["target_directory"].as_str();
    let target = target.context("cargo metadata names no target directory")?;
    Ok(TARGET.get_or_init(|| target.into()).clone())
}

/// Runs a command to its end.
///
/// # Errors
/// If the command cannot be started, or fails.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Returns the program `package` in the directory of `program`. Builds it, with the profile of the caller, if
/// it does not exist.
///
/// # Errors
/// If cargo fails.
pub fn beside(program: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let other = program.with_file_name(package);
    if !other.exists() {
        let mut cargo = cargo();
        cargo.args(["build", "--quiet", "--locked", "--package", package]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        run(&mut cargo)?;
    }
    Ok(other)
}

/// Returns everything that a program printed.
pub fn text(output: &Output) -> String {
    let printed = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&printed).into_owned()
}

/// Runs a command to its end, and returns its standard output.
///
/// # Errors
/// If the command cannot be started, fails, or prints something other than UTF-8. The error contains its
/// standard error, unless the caller has redirected that.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    ensure!(
        output.status.success(),
        "{} failed: {}: {}",
        line(command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Like [`run`], with a time limit. After `limit`, or after a Ctrl-C, it ends the command and all processes
/// that the command started.
///
/// # Errors
/// As [`run`]; also if the command takes longer than `limit`, or after a Ctrl-C.
pub fn run_within(command: &mut Command, limit: Duration, interrupt: &Interrupt) -> anyhow::Result<()> {
    let Some(status) = status_until(command, limit, interrupt, || {})? else {
        bail!("{} hung: ended after {} s", line(command), limit.as_secs_f64());
    };
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a command to its end, and returns its status, whether it succeeded or failed. After `limit` it ends
/// the command and returns `None`. A Ctrl-C also ends the command. Calls `watch` from time to time.
///
/// # Errors
/// If the command cannot be started, and after a Ctrl-C.
pub fn status_until(
    command: &mut Command,
    limit: Duration,
    interrupt: &Interrupt,
    watch: impl Fn(),
) -> anyhow::Result<Option<ExitStatus>> {
    let started = Instant::now();
    // A process group of its own, so that its child processes can be ended with it.
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", line(command)))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if let Err(interrupted) = interrupt.check() {
            end(&mut child);
            return Err(interrupted.into());
        }
        if started.elapsed() >= limit {
            end(&mut child);
            return Ok(None);
        }
        watch();
        std::thread::sleep(CHECK_EVERY);
    }
}

/// Ends a process and the group that it leads. The first signal is SIGTERM, so the processes can remove their
/// files.
fn end(leader: &mut Child) {
    let group = Pid::from_child(leader);
    // If the process has just ended by itself, there is nothing left to end. Other failures cannot be
    // handled.
    let _ = kill_process_group(group, Signal::TERM);
    let asked = Instant::now();
    // The leader is not reaped yet, so the number of the group is not reused.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(group), ended), Ok(None)) && asked.elapsed() < GRACE {
        std::thread::sleep(CHECK_EVERY);
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = leader.wait();
}

/// Returns a command as one would type it.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns `true` if a program can be started.
pub fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn success_and_failure_are_distinguished() {
        let interrupt = Interrupt::default();
        let limit = Duration::from_secs(60);
        assert!(run_within(&mut shell("true"), limit, &interrupt).is_ok());
        let failed = run_within(&mut shell("exit 3"), limit, &interrupt).unwrap_err();
        assert!(failed.to_string().contains("exit status: 3"), "{failed}");
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        // The grandchild holds the write end, so the read reaches its end only after the grandchild has
        // ended, too.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = shell("sleep 1000 & wait");
        command.stdout(writer);
        let hung = run_within(&mut command, Duration::from_millis(50), &Interrupt::default()).unwrap_err();
        assert!(hung.to_string().contains("hung"), "{hung}");
        drop(command);
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut rest).unwrap();
    }

    #[test]
    fn a_command_that_is_ended_may_clean_up_first() {
        let directory = tempfile::tempdir().unwrap();
        let [made, ready] = ["made", "ready"].map(|name| directory.path().join(name));
        let script = format!(
            "trap 'rm {made}; exit' TERM; echo > {made}; echo > {ready}; sleep 1000 & wait",
            made = made.display(),
            ready = ready.display()
        );
        // The interrupt ends the command as soon as it is ready. No other test raises this interrupt.
        let interrupt = Interrupt::default();
        let watch = || {
            if ready.exists() {
                interrupt.raise();
            }
        };
        let limit = Duration::from_secs(1000);
        status_until(&mut shell(&script), limit, &interrupt, watch).unwrap_err();
        assert!(!made.exists());
    }

    #[test]
    fn a_command_that_need_not_end_is_no_failure() {
        let limit = Duration::from_millis(50);
        let ended = status_until(&mut shell("sleep 1000"), limit, &Interrupt::default(), || {});
        assert_eq!(ended.unwrap(), None);
        let limit = Duration::from_secs(1000);
        let ended = status_until(&mut shell("exit 3"), limit, &Interrupt::default(), || {});
        assert_eq!(ended.unwrap().unwrap().code(), Some(3));
    }

    #[test]
    fn an_interrupt_ends_it() {
        let interrupt = Interrupt::default();
        interrupt.raise();
        let stopped =
            run_within(&mut shell("sleep 1000"), Duration::from_secs(1000), &interrupt).unwrap_err();
        assert!(stopped.is::<crate::interrupt::Interrupted>());
    }
}
