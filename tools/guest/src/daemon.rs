//! [`Daemon`]: a blockd that can be killed and started again.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aio_tools::shell;
use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::guest::last_lines;

/// The time that a daemon has to end before it counts as hung.
const END: Duration = Duration::from_secs(15);

/// A daemon with an image. Dropping it kills it.
pub(crate) struct Daemon {
    program: PathBuf,
    args: Vec<String>,
    directory: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts a daemon that serves `image`, on all of its threads, and the exports that `ctl` adds.
    ///
    /// # Errors
    /// If the daemon does not start. The error contains its log.
    pub(crate) fn start(program: &Path, directory: &Path, options: &[&str]) -> anyhow::Result<Self> {
        let at = |name: &str| directory.join(name).display().to_string();
        let export = format!(
            "path={},socket={},name=disk,serial=guest-disk,iothread=all",
            at("image"),
            at("disk.sock")
        );
        let mut args = vec![
            "--export".to_owned(),
            export,
            "--control".to_owned(),
            at("control"),
        ];
        args.extend(options.iter().map(|&option| option.to_owned()));
        let child = spawn(program, &args, directory)?;
        Ok(Self {
            program: program.to_owned(),
            args,
            directory: directory.to_owned(),
            child,
        })
    }

    /// Kills the daemon with SIGKILL, and starts another one that takes over.
    ///
    /// # Errors
    /// If the new daemon does not start.
    pub(crate) fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(&self.program, &self.args, &self.directory)?;
        Ok(())
    }

    /// Sends a command to the daemon.
    ///
    /// # Errors
    /// If the daemon refuses the command.
    pub(crate) fn ctl(&self, command: &[&str]) -> anyhow::Result<String> {
        shell::output(&mut self.ctl_command(command))
    }

    /// Returns the program that sends a command to the daemon.
    pub(crate) fn ctl_command(&self, command: &[&str]) -> Command {
        let mut ctl = Command::new(&self.program);
        ctl.args(["ctl", "--control"])
            .arg(self.directory.join("control"))
            .args(command);
        ctl
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends the daemon, and checks that its log has no panic.
    ///
    /// # Errors
    /// If the daemon does not end with status 0 in time.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if began.elapsed() > END {
                bail!("blockd does not end within {} s", END.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        ensure!(status.success(), "blockd ends with {status}:\n{}", self.log());
        let log = std::fs::read_to_string(self.directory.join("log"))?;
        ensure!(!log.contains("panicked"), "blockd has panicked:\n{log}");
        Ok(())
    }

    /// Returns the end of the daemon's log.
    pub(crate) fn log(&self) -> String {
        last_lines(&std::fs::read(self.directory.join("log")).unwrap_or_default())
    }
}

fn spawn(program: &Path, args: &[String], directory: &Path) -> anyhow::Result<Child> {
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // Ctrl-C then signals only this program, which ends the daemon.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let out = child.stdout.take().context("standard output is piped")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    if line.trim() != "ready" {
        let status = child.wait()?;
        let log = std::fs::read(directory.join("log")).unwrap_or_default();
        bail!("blockd does not start, {status}:\n{}", last_lines(&log));
    }
    Ok(child)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon may have ended by itself.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
