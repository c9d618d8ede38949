//! [`Lines`]: executes the commands of the control socket.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use aio_context::Context;
use anyhow::{anyhow, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::command::{Answer, Command, MOST_COMMAND, PollChange};
use crate::background::Background;
use crate::export::Export;
use crate::exports::Exports;
use crate::log::LogLevel;
use crate::loops::unknown;
use crate::peers::{Protocol, Reply};

/// The most clients of a control socket.
const MOST_CLIENTS: usize = 32;
/// A client that does not read its answer for so long is disconnected.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the commands act on.
#[derive(Clone, Debug)]
pub(crate) struct Controlled {
    pub(crate) exports: Rc<Exports>,
    /// `None` if the log is not the daemon's.
    pub(crate) log_level: Option<LogLevel>,
    /// Where metrics are served.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) background: Background,
}

/// The protocol of the control socket.
#[derive(Debug)]
pub(super) struct Lines(Controlled);

/// Receives the result of a command, now or later.
type Done = Box<dyn FnOnce(&Context, anyhow::Result<Value>)>;

impl Lines {
    pub(super) fn new(controlled: Controlled) -> Self {
        Self(controlled)
    }

    fn execute(&self, cx: &Context, command: Command, done: Done) {
        let exports = &self.0.exports;
        match command {
            Command::List {} => {
                let metrics = self.0.metrics.map(|address| address.to_string());
                exports.list(cx, metrics, |cx, list| done(cx, value(&list)));
            }
            Command::Stats {} => {
                let background = self.0.background.clone();
                exports.snapshot(cx, move |cx, snapshot| {
                    // That of thousands of queues takes some time to format.
                    background.run(cx, move || value(&snapshot), done);
                });
            }
            Command::Add { export } => match export.parse::<Export>() {
                Ok(export) => exports.add(export, Box::new(|cx, added| done(cx, added.map(|()| json!({}))))),
                Err(error) => done(cx, Err(anyhow!(error))),
            },
            Command::Remove { name } => exports.remove(
                &name,
                Box::new(|cx, removed| {
                    done(
                        cx,
                        removed.map(|incomplete| json!({"incomplete_requests": incomplete})),
                    );
                }),
            ),
            Command::Resize { name, size, shrink } => exports.resize(
                &name,
                &size,
                shrink,
                Box::new(|cx, resized| done(cx, resized.map(|size| json!({"size": size})))),
            ),
            Command::SetPoll { name, poll } => self.set_poll(cx, &name, poll, done),
            Command::LogLevel { level } => done(cx, self.set_log_level(&level)),
        }
    }

    /// Changes the polling of a loop, which is named, or of those that serve the export that is named.
    fn set_poll(&self, cx: &Context, name: &str, change: PollChange, done: Done) {
        let loops = self.0.exports.loops();
        let named = loops.find(name).map(|index| vec![index]);
        let Some(indexes) = named.or_else(|| self.0.exports.loops_of(name)) else {
            return done(cx, Err(unknown(loops, name)));
        };
        loops.call_all(
            cx,
            &indexes,
            move |cx, local, reply| {
                let polling = local.polling();
                let changed = polling.change(cx, &change).map(|()| polling.describe());
                reply.send(cx, changed);
            },
            Box::new(|cx, changed: anyhow::Result<Vec<String>>| {
                let first = changed.map(|polling| json!({"polling": polling.first()}));
                done(cx, first);
            }),
        );
    }

    fn set_log_level(&self, level: &str) -> anyhow::Result<Value> {
        let Some(log) = &self.0.log_level else {
            bail!("this daemon is a part of another program, which has the log");
        };
        log.set(level)?;
        Ok(json!({"level": level}))
    }
}

/// The JSON form of an answer.
fn value(answer: &impl Serialize) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(answer)?)
}

impl Protocol for Lines {
    fn most_peers(&self) -> usize {
        MOST_CLIENTS
    }

    fn most_request(&self) -> usize {
        MOST_COMMAND
    }

    fn request_timeout(&self) -> Option<Duration> {
        // A person may type it. The number of clients is limited.
        None
    }

    fn reply_timeout(&self) -> Duration {
        REPLY_TIMEOUT
    }

    fn end_of_request(&self) -> &'static [u8] {
        b"\n"
    }

    fn handle(&self, cx: &Context, request: &[u8], reply: Reply) {
        let answer: Done = Box::new(move |cx, result| {
            let answer = match result {
                Ok(value) => Answer::Ok(value),
                Err(error) => Answer::Error(format!("{error:#}")),
            };
            reply.send(cx, answer.to_line(), false);
        });
        match serde_json::from_slice(request) {
            Ok(command) => {
                tracing::debug!(?command, "control");
                self.execute(cx, command, answer);
            }
            Err(error) => answer(
                cx,
                Err(anyhow!(
                    "the line is not a command: {error}; send a JSON object such as {{\"command\":\"list\"}}, or use \
                     `blockd ctl`"
                )),
            ),
        }
    }

    fn too_long(&self) -> Vec<u8> {
        let error = format!("a line has more than {MOST_COMMAND} bytes; end it with a newline");
        Answer::Error(error).to_line()
    }
}
