//! The stored state of a guest that has failed, which explains the failure.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aio_tools::interrupt::Interrupt;
use aio_tools::shell;
use anyhow::Context as _;

use crate::daemon::Daemon;
use crate::guest::Guest;
use crate::row::Setup;

/// The time limit of each program that collects something. A hang of the guest can block such a program, too.
const LIMIT: Duration = Duration::from_secs(20);
/// The files of the guest's directory that are kept.
const FILES: [&str; 3] = ["log", "console", "qemu"];
/// The kernel's files about a thread. `stack` needs root.
const OF_THREADS: [&str; 5] = ["comm", "wchan", "syscall", "stack", "status"];

/// Stores the state of both sides in a directory of its own, and returns a report: the path of the directory,
/// and the progress of each queue.
///
/// # Errors
/// If the directory cannot be made. Items that cannot be collected are named in the report.
pub(crate) fn keep(
    setup: Setup,
    step: &str,
    from: &Path,
    daemon: &Daemon,
    guest: &mut Guest,
    interrupt: &Interrupt,
) -> anyhow::Result<String> {
    let kept = directory(setup, step)?;
    let mut report = queues(setup, guest);
    for name in FILES {
        if let Err(error) = fs::copy(from.join(name), kept.join(name)) {
            writeln!(report, "cannot keep {name}: {error}")?;
        }
    }
    let mut collect = |name: &str, command: &mut Command| {
        if let Err(why) = collect(command, &kept.join(name), interrupt) {
            writeln!(report, "cannot collect {name}: {why:#}").unwrap_or_default();
        }
    };
    for command in ["list", "stats"] {
        collect(command, &mut daemon.ctl_command(&[command]));
    }
    for (program, process) in [("blockd", daemon.process()), ("qemu", guest.process())] {
        fs::write(kept.join(format!("threads-{program}")), threads(process))?;
        if shell::is_installed("gdb") {
            let mut gdb = Command::new("gdb");
            gdb.args(["-batch", "-ex", "thread apply all backtrace 16", "-p"]);
            collect(&format!("backtraces-{program}"), gdb.arg(process.to_string()));
        }
    }
    fs::write(kept.join("report"), &report)?;
    writeln!(
        report,
        "the state of blockd and QEMU is kept in {}",
        kept.display()
    )?;
    Ok(report)
}

/// Makes an empty directory in the target directory.
fn directory(setup: Setup, step: &str) -> anyhow::Result<PathBuf> {
    let name: String = format!("{setup} {step}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let failed = shell::target_dir()?.join("guest/failed").join(name);
    if failed.exists() {
        fs::remove_dir_all(&failed).with_context(|| format!("cannot remove {}", failed.display()))?;
    }
    fs::create_dir_all(&failed).with_context(|| format!("cannot make {}", failed.display()))?;
    Ok(failed)
}

/// Returns a line for each queue. If all requests are complete, the guest does not wait for its disk.
fn queues(setup: Setup, guest: &mut Guest) -> String {
    let mut report = String::new();
    for queue in 0..setup.queues {
        let line = match guest.queue_state(queue) {
            Ok(state) => {
                let missing = state.offered.wrapping_sub(state.completed);
                format!(
                    "queue {queue}: {} requests offered, {} completed, {missing} missing",
                    state.offered, state.completed
                )
            }
            Err(why) => format!("queue {queue}: {why:#}"),
        };
        report += &line;
        report.push('\n');
    }
    report
}

/// Runs a command, and stores its output in a file.
fn collect(command: &mut Command, file: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
    let file = File::create(file)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    shell::run_within(command, LIMIT, interrupt)
}

/// Returns the kernel's files about each thread of a process.
fn threads(process: u32) -> String {
    let mut text = String::new();
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        for name in OF_THREADS {
            let said = fs::read_to_string(task.path().join(name));
            let said = said.unwrap_or_else(|error| error.to_string());
            text += &format!("{} {name}: {}\n", task.path().display(), said.trim_end());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_listed_with_what_they_wait_for() {
        let text = threads(std::process::id());
        for part in ["comm: ", "wchan: ", "syscall: ", "State:"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(threads(u32::MAX), "");
    }

    #[test]
    fn what_cannot_be_collected_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::catch().unwrap();
        let file = directory.path().join("kept");
        collect(Command::new("echo").arg("kept"), &file, &interrupt).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept\n");
        assert!(collect(&mut Command::new("false"), &file, &interrupt).is_err());
    }
}
