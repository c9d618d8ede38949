//! [`Connection`]: a connection to the control socket of a daemon.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Pid;
use serde_json::Value;

use super::command::{Answer, Command};
use crate::peer_process::peer_process;

/// The longest wait for an answer. A removal waits five seconds for the requests of the export.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The time between two lines on standard error that report the wait and its cause.
const TELL_AFTER: Duration = Duration::from_secs(3);
/// The most bytes of an answer; that of the statistics of thousands of queues has some megabytes.
const MOST_ANSWER: u64 = 1 << 30;

/// A connection to a daemon.
pub(super) struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    /// Connects to the daemon with this control socket.
    ///
    /// # Errors
    /// If there is no such daemon; with the remedy.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let socket = UnixStream::connect(path).map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => "there is no such socket; --control names the one of the daemon",
                io::ErrorKind::ConnectionRefused if !is_socket(path) => {
                    "it is not a socket; --control names the one of the daemon"
                }
                io::ErrorKind::ConnectionRefused => {
                    "no daemon listens there any more; start it with --control"
                }
                io::ErrorKind::PermissionDenied => {
                    "only the user of the daemon may connect; become that user"
                }
                _ => "--control names the control socket of the daemon",
            };
            let what = format!("cannot connect to {}: {remedy}", path.display());
            anyhow::Error::new(error).context(what)
        })?;
        socket.set_read_timeout(Some(TELL_AFTER))?;
        // A daemon without an answer for this time hangs.
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self {
            reader: BufReader::new(socket),
        })
    }

    /// Sends a command, and waits for its answer.
    ///
    /// # Errors
    /// If the daemon refuses the command, or ends.
    pub(super) fn send(&mut self, command: &Command) -> anyhow::Result<Value> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        let gone = "the daemon has ended the connection; it may have been stopped";
        self.reader.get_mut().write_all(&line).context(gone)?;
        let answer = self.receive(gone)?;
        if answer.is_empty() {
            bail!(gone);
        }
        let answer = serde_json::from_slice(&answer)
            .context("the answer is not one of blockd; --control names another program's socket")?;
        match answer {
            Answer::Ok(value) => Ok(value),
            Answer::Error(error) => bail!(error),
        }
    }
    /// Returns the next line. Reports on standard error that it waits, until the line arrives.
    ///
    /// # Errors
    /// `gone` if the connection fails; a description of the wait after [`TIMEOUT`].
    fn receive(&mut self, gone: &'static str) -> anyhow::Result<Vec<u8>> {
        let mut line = Vec::new();
        let begun = Instant::now();
        loop {
            let most = MOST_ANSWER.saturating_sub(line.len() as u64);
            match Read::take(&mut self.reader, most).read_until(b'\n', &mut line) {
                Ok(_) => return Ok(line),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !is_timeout(&error) => return Err(anyhow::Error::new(error).context(gone)),
                Err(_) if begun.elapsed() >= TIMEOUT => {
                    bail!("{}; it may still do what it was told", self.silence(TIMEOUT))
                }
                Err(_) => {
                    let left = TIMEOUT.saturating_sub(begun.elapsed()).as_secs();
                    let silence = self.silence(begun.elapsed());
                    // If standard error cannot be written, the wait is not reported.
                    let _ = writeln!(io::stderr(), "blockd: {silence}; waits for up to {left} s more");
                }
            }
        }
    }

    /// Returns a text that there is no answer, and the probable cause.
    fn silence(&self, time: Duration) -> String {
        let pid = peer_process(self.reader.get_ref()).ok().flatten();
        let (who, pid) = match pid.map(Pid::as_raw_pid) {
            Some(pid) => (format!("the daemon (process {pid})"), pid.to_string()),
            None => ("the daemon".to_owned(), String::new()),
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let is_stopped = status
            .lines()
            .any(|line| line.starts_with("State:\tT") || line.starts_with("State:\tt"));
        let cause = match is_stopped {
            true => format!("a signal or a debugger has stopped it, and `kill -CONT {pid}` lets it go on"),
            false => "its first thread is busy or hangs, and its log may say why".to_owned(),
        };
        let time = time.as_secs();
        format!("{who} has not answered for {time} s: {cause}")
    }
}

/// Returns `true` if a read has taken too long.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.file_type().is_socket())
}
