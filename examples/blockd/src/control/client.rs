//! `blockd ctl`: sends a command and prints the answer.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::args::{Action, CtlArgs};
use super::command::{Answer, Command};
use super::table::Table;
use crate::figures::List;

/// A connection to a daemon.
pub(super) struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    /// Connects to the daemon with this control socket.
    ///
    /// # Errors
    /// If there is none; with the remedy.
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
        Ok(Self {
            reader: BufReader::new(socket),
        })
    }

    /// Sends a command, and waits for its answer.
    ///
    /// # Errors
    /// If the daemon refuses the command, or ends.
    pub(super) fn ask(&mut self, command: &Command) -> anyhow::Result<Value> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        let gone = "the daemon has ended the connection; it may have been stopped";
        self.reader.get_mut().write_all(&line).context(gone)?;
        let mut answer = String::new();
        self.reader.read_line(&mut answer).context(gone)?;
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

/// Executes `blockd ctl`.
pub(super) fn run(args: &CtlArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut connection = Connection::open(&args.control)?;
    let answer = connection.ask(&args.action.command())?;
    if args.json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    match &args.action {
        Action::List => print_list(&serde_json::from_value(answer)?, out)?,
        Action::Remove { name } => match answer["incomplete_requests"].as_u64() {
            Some(0) | None => writeln!(out, "{name} is removed")?,
            Some(count) => writeln!(
                out,
                "{name} is removed; its image had not completed {count} requests in time, which the driver regards as outstanding"
            )?,
        },
        Action::Resize { name, .. } => writeln!(out, "{name} has {} bytes", answer["size"])?,
        Action::SetPoll { .. } => {
            writeln!(out, "polling: {}", answer["polling"].as_str().unwrap_or_default())?;
        }
        Action::Add { .. } | Action::LogLevel { .. } => writeln!(out, "done")?,
    }
    Ok(())
}

fn print_list(list: &List, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&["NAME", "DISK", "SIZE", "CLIENT", "QUEUES", "SOCKET"]);
    for export in &list.exports {
        let disk = match export.readonly {
            true => format!("{} (read-only)", export.disk),
            false => export.disk.clone(),
        };
        let client = match (export.is_leaving, export.connected) {
            (true, _) => "leaving",
            (false, true) => "connected",
            (false, false) => "none",
        };
        table.row([
            export.name.clone(),
            disk,
            bytes(export.size),
            client.to_owned(),
            format!("{} of {}", export.serving, export.queues),
            export.socket.clone(),
        ]);
    }
    table.write(out)?;
    for event_loop in &list.loops {
        let (name, backend) = (&event_loop.name, &event_loop.backend);
        writeln!(
            out,
            "loop {name}: waits with {backend}; polling {}",
            event_loop.polling
        )?;
    }
    Ok(())
}

/// A number of bytes with a unit, if it is a multiple of one.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let whole = |(shift, _): &(u32, &str)| bytes >> shift > 0 && bytes.is_multiple_of(1 << shift);
    match units.into_iter().find(whole) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}
