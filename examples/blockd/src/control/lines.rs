//! [`Lines`]: executes the commands of the control socket.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context};
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
/// The time after which a client that does not read its answer is disconnected.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// The time after which a command without a result is answered with an error. A removal takes up to five
/// seconds.
const RESULT_TIMEOUT: Duration = Duration::from_secs(10);

const NO_RESULT: &str = "there is no result in time: an I/O thread or a file server does not respond; the command `list` shows which threads \
                         do not. The command goes on as soon as they respond";

/// The objects on which the commands act.
#[derive(Clone, Debug)]
pub(crate) struct Controlled {
    pub(crate) exports: Rc<Exports>,
    /// `None` if the log belongs to another program.
    pub(crate) log_level: Option<LogLevel>,
    /// The address at which metrics are served.
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
                    // The snapshot of thousands of queues takes some time to format.
                    background.run(cx, move || value(&snapshot), done);
                });
            }
            Command::Add { export } => match export.parse::<Export>() {
                Ok(export) => {
                    let (name, exports) = (export.log_name(), exports.clone());
                    let answer = move |()| with_warning(&exports, &name, json!({}));
                    self.0
                        .exports
                        .add(export, Box::new(|cx, added| done(cx, added.map(answer))));
                }
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
            Command::Resize { name, size, shrink } => exports.resize(&name, &size, shrink, {
                let (name, exports) = (name.clone(), exports.clone());
                let answer = move |size| with_warning(&exports, &name, json!({"size": size}));
                Box::new(|cx, resized| done(cx, resized.map(answer)))
            }),
            Command::SetPoll { name, poll } => self.set_poll(cx, &name, poll, done),
            Command::LogLevel { level } => done(cx, self.set_log_level(&level)),
        }
    }

    /// Changes the polling of the loop `name`, or of the loops that serve the export `name`.
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

/// Passes on a result, or an error if there is none within `limit`, because a thread or a file server may
/// hang.
fn within(cx: &Context, limit: Duration, what: String, done: Done) -> Done {
    let done = Rc::new(Cell::new(Some(done)));
    let late = done.clone();
    let timer = cx.timer(ClockId::Monotonic, move |cx, _| {
        if let Some(done) = late.take() {
            tracing::warn!("the command {what} has no result within {limit:?}");
            done(cx, Err(anyhow!(NO_RESULT)));
        }
    });
    let timer = timer.armed_after(limit);
    Box::new(move |cx, result| {
        drop(timer);
        if let Some(done) = done.take() {
            done(cx, result);
        }
    })
}

/// Adds a warning to the answer if the disks of this export and others can take more memory than there is,
/// and logs it. Otherwise adds one if the image is not at its path any more, which was logged already.
fn with_warning(exports: &Exports, name: &str, mut answer: Value) -> Value {
    if let Some(warning) = exports.memory_warning(name) {
        tracing::warn!("{warning}");
        answer["warning"] = warning.into();
    } else if let Some(warning) = exports.image_warning(name) {
        answer["warning"] = warning.into();
    }
    answer
}

/// Returns the JSON form of an answer.
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
        // A person may type the command, so there is no limit of time. The number of clients is limited.
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
        match serde_json::from_slice::<Command>(request) {
            Ok(command) => {
                tracing::debug!(?command, "control");
                let answer = within(cx, RESULT_TIMEOUT, command.to_string(), answer);
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

#[cfg(test)]
mod tests {
    use super::*;
    use aio_context::Wait;

    /// Returns the results that arrive, if a second result follows late.
    fn results(limit: Duration, is_in_time: bool) -> Vec<String> {
        let cx = Context::new().unwrap();
        let arrived = Rc::new(std::cell::RefCell::new(Vec::new()));
        let sink = arrived.clone();
        let done: Done = Box::new(move |_, result| {
            let text = result.map_or_else(|error| error.to_string(), |value| value.to_string());
            sink.borrow_mut().push(text);
        });
        let done = within(&cx, limit, String::new(), done);
        if is_in_time {
            done(&cx, Ok(json!(1)));
            while cx.poll(Wait::NoBlock).unwrap() {}
        } else {
            while arrived.borrow().is_empty() {
                cx.poll(Wait::Block).unwrap();
            }
            done(&cx, Ok(json!(2)));
        }
        arrived.take()
    }

    #[test]
    fn a_command_without_a_result_is_answered_once() {
        assert_eq!(results(Duration::from_secs(1000), true), ["1"]);
        assert_eq!(results(Duration::ZERO, true), ["1"]);
        assert_eq!(results(Duration::from_millis(1), false), [NO_RESULT]);
    }
}
