//! The commands of the control socket, as they are sent: one JSON object per line.

use std::fmt;

use clap::Args;
use serde::{Deserialize, Serialize};

/// The most bytes of a line with a command. A path has at most 4,096.
pub(crate) const MOST_COMMAND: usize = 64 << 10;

/// A command to a daemon.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// Shows all exports and loops.
    List {},
    /// Shows what all exports and loops have done.
    Stats {},
    /// Serves another export.
    Add {
        /// The description, in the form of `--export`.
        export: String,
    },
    /// Completes the requests that an export has taken, and serves it no longer.
    Remove {
        /// The name of the export.
        name: String,
    },
    /// Changes the size of a disk.
    Resize {
        /// The name of the export.
        name: String,
        /// Bytes, in the form of `ram=`; or `auto`.
        size: String,
        /// Whether data at its end may be lost.
        #[serde(default)]
        shrink: bool,
    },
    /// Changes the polling parameters of a loop.
    SetPoll {
        /// The name of the loop, or of an export that it serves.
        name: String,
        /// The parameters that change.
        poll: PollChange,
    },
    /// Changes the level of the log.
    LogLevel {
        /// The level, in the form of BLOCKD_LOG.
        level: String,
    },
}

impl fmt::Display for Command {
    /// Writes the command in the form that is sent, with control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// The polling parameters of the command line that are to change. `blockd ctl` takes them and sends them in
/// this form. The daemon checks their values.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[group(required = true, multiple = true)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PollChange {
    /// The longest busy polling before a sleep; 0 turns polling off
    #[arg(long = "poll-max", value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<String>,
    /// The policy that decides how long to poll
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<String>,
    /// The cost of a wake-up in nanoseconds
    #[arg(long = "poll-wake-ns", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wake_ns: Option<u64>,
    /// The time in nanoseconds that a client spends on a kick
    #[arg(long = "poll-kick-ns", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kick_ns: Option<u64>,
    /// The price of CPU time in percent of latency
    #[arg(long = "poll-cpu-price", value_name = "PERCENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_price: Option<u32>,
    /// The largest share of a core to spend on polling
    #[arg(long = "poll-cpu-max", value_name = "PERCENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_max: Option<u32>,
    /// Whether the daemon has its core for itself: true or false
    #[arg(long = "poll-exclusive", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exclusive: Option<bool>,
    /// The factor by which some policies lengthen the polling time
    #[arg(long = "poll-grow", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grow: Option<u32>,
    /// The divisor by which some policies shorten the polling time
    #[arg(long = "poll-shrink", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shrink: Option<u32>,
    /// The weight of the past in qemu-weighted
    #[arg(long = "poll-weight", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u32>,
}

/// The answer to a command.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The command was executed; this is its result.
    Ok(serde_json::Value),
    /// The command was not executed; this is the cause and the remedy.
    Error(String),
}

impl Answer {
    /// Returns the answer as a line.
    pub(crate) fn to_line(&self) -> Vec<u8> {
        // The answer consists of text and numbers, so it has a JSON form.
        let mut line = serde_json::to_vec(self).unwrap_or_else(|_| b"{\"error\":\"\"}".to_vec());
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_objects_with_a_name() {
        for (line, command) in [
            (r#"{"command":"list"}"#, Command::List {}),
            (
                r#"{"command":"resize","name":"a","size":"2G"}"#,
                Command::Resize {
                    name: "a".into(),
                    size: "2G".into(),
                    shrink: false,
                },
            ),
            (
                r#"{"command":"set-poll","name":"main","poll":{"max":"32us","cpu-max":50}}"#,
                Command::SetPoll {
                    name: "main".into(),
                    poll: PollChange {
                        max: Some("32us".into()),
                        cpu_max: Some(50),
                        ..PollChange::default()
                    },
                },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Command>(line).unwrap(), command);
            let sent = serde_json::to_string(&command).unwrap();
            assert_eq!(serde_json::from_str::<Command>(&sent).unwrap(), command);
        }
        for wrong in [
            "",
            "list",
            "[]",
            r#"{"command":"list","name":"a"}"#,
            r#"{"command":"remove"}"#,
            r#"{"command":"Remove","name":"a"}"#,
            r#"{"command":"set-poll","name":"main","poll":{"maximum":"32us"}}"#,
        ] {
            assert!(serde_json::from_str::<Command>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_are_one_line() {
        let answer = Answer::Error("two\nlines".into());
        assert_eq!(answer.to_line(), b"{\"error\":\"two\\nlines\"}\n");
        assert_eq!(Answer::Ok(serde_json::json!({})).to_line(), b"{\"ok\":{}}\n");
    }
}
