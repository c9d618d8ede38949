//! The command line of `blockd ctl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::command::{Command, PollChange};
use crate::duration::parse_duration;

/// The shortest time between two rates.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// Controls a running daemon.
///
/// Prints the answer, and ends with status 1 if the daemon refuses the command.
#[derive(Args, Clone, Debug)]
pub struct CtlArgs {
    /// The control socket of the daemon, as its own option --control names it
    #[arg(long, value_name = "PATH", global = true, env = "BLOCKD_CONTROL")]
    pub(super) control: Option<PathBuf>,

    /// Prints the answer as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,

    #[command(subcommand)]
    pub(super) action: Action,
}

/// A command of `blockd ctl`.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Action {
    /// Shows all exports and event loops
    List,
    /// Shows what each export has done: requests, bytes, errors, latencies, polling hits, kicks and calls
    Stats {
        /// Shows the rates instead, again and again until Ctrl-C
        #[arg(long)]
        watch: bool,
        /// The time between two rates
        #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
        interval: Duration,
    },
    /// Serves another export, described as for --export
    Add {
        /// Such as path=disk.raw,socket=disk.sock
        export: String,
    },
    /// Completes the requests that an export has taken, disconnects its client and removes its socket
    Remove {
        /// The name of the export
        name: String,
    },
    /// Changes the size of a disk, and tells its client
    Resize {
        /// The name of the export
        name: String,
        /// Bytes, or a number with K, M, G or T; auto is the size that an image has by now
        size: String,
        /// Allows to lose the data at the end of the disk
        #[arg(long)]
        shrink: bool,
    },
    /// Changes the polling parameters of an event loop; those that are not given stay
    SetPoll {
        /// The name of the loop (main), or of an export that it serves
        name: String,
        #[command(flatten)]
        change: PollChange,
    },
    /// Changes the level of the log: off, error, warn, info, debug, trace, or a list as in BLOCKD_LOG
    LogLevel {
        /// The level
        level: String,
    },
}

impl Action {
    /// Returns the command in the form that is sent. Paths become absolute, because the daemon may run in
    /// another directory.
    pub(super) fn command(&self) -> Command {
        match self {
            Self::List => Command::List {},
            Self::Stats { .. } => Command::Stats {},
            Self::Add { export } => Command::Add {
                export: absolute(export),
            },
            Self::Remove { name } => Command::Remove { name: name.clone() },
            Self::Resize { name, size, shrink } => Command::Resize {
                name: name.clone(),
                size: size.clone(),
                shrink: *shrink,
            },
            Self::SetPoll { name, change } => Command::SetPoll {
                name: name.clone(),
                poll: change.clone(),
            },
            Self::LogLevel { level } => Command::LogLevel { level: level.clone() },
        }
    }
}

/// Parses an interval that is long enough for a reader.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < LEAST_INTERVAL {
        return Err(format!("'{text}' is shorter than {LEAST_INTERVAL:?}"));
    }
    Ok(interval)
}

/// Returns the description of an export with absolute paths.
fn absolute(export: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((key @ ("path" | "socket"), path)) if !path.is_empty() && !path.starts_with("fd:") => {
            match std::path::absolute(path) {
                Ok(path) => format!("{key}={}", path.display()),
                Err(_) => part.to_owned(),
            }
        }
        _ => part.to_owned(),
    };
    export.split(',').map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_an_export_are_sent_absolute() {
        let here = std::env::current_dir().unwrap();
        let here = here.display();
        assert_eq!(
            absolute("path=a.raw,socket=../b,queues=2,serial=path"),
            format!("path={here}/a.raw,socket={here}/../b,queues=2,serial=path")
        );
        for same in ["path=/a,socket=/b", "ram=1M,socket=fd:name", "path=,socket", ""] {
            assert_eq!(absolute(same), same);
        }
    }
}
