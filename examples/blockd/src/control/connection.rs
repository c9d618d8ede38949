//! [`Connection`]: a connection to the control socket of a daemon.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::command::{Answer, Command};

/// The longest wait for an answer. A removal waits five seconds for the requests of the export.
const TIMEOUT: Duration = Duration::from_secs(60);

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
        // A daemon without an answer for this time hangs.
        socket.set_read_timeout(Some(TIMEOUT))?;
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
        let mut answer = String::new();
        self.reader.read_line(&mut answer).map_err(|error| {
            let what = match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    "the daemon does not answer: its first thread hangs; its log may say why"
                }
                _ => gone,
            };
            anyhow::Error::new(error).context(what)
        })?;
        if answer.is_empty() {
            bail!(gone);
        }
        let answer = serde_json::from_str(&answer)
            .context("the answer is not one of blockd; --control names another program's socket")?;
        match answer {
            Answer::Ok(value) => Ok(value),
            Answer::Error(error) => bail!(error),
        }
    }
}
