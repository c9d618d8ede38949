//! The log: lines that go to standard error through a bounded queue and a thread of their own.
//!
//! Logging never blocks and never panics. If standard error is not read or its file system is full, only log lines are lost.
//! They are counted, and the count is written once writing works again.

use std::collections::VecDeque;
use std::env::VarError;
use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use tracing_subscriber::{EnvFilter, reload};

/// The most lines that wait for the writer. Further lines are lost.
const MAX_WAITING: usize = 4096;
/// The most bytes of a line. Longer lines are truncated.
const MAX_LINE_BYTES: usize = 4096;
/// The longest wait of [`Log`] for the writer.
const MAX_FLUSH: Duration = Duration::from_secs(1);
/// All levels that BLOCKD_LOG may name.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The level unless BLOCKD_LOG names another.
const DEFAULT_LEVEL: &str = "warn";

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: one line of text each; coloured on a terminal, unless NO_COLOR is set
    #[default]
    Text,
    /// For programs: one JSON object on each line
    Json,
}

/// Sets the level of the log while the process runs.
#[derive(Clone)]
pub struct LogLevel(Arc<SetFilter>);

type SetFilter = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

impl LogLevel {
    /// Sets the level, in the form of BLOCKD_LOG.
    ///
    /// # Errors
    /// If the level is unknown; with the known levels. The log keeps its level.
    pub fn set(&self, level: &str) -> anyhow::Result<()> {
        let filter = parse_filter(level).ok_or_else(|| {
            anyhow::anyhow!("{level:?} is not a level; use off, error, warn, info, debug or trace")
        })?;
        Ok((self.0)(filter)?)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").finish_non_exhaustive()
    }
}

/// The process's log. Dropping it waits, for at most a second, until all lines are written.
#[derive(Debug)]
#[must_use = "dropping the log ends it"]
pub struct Log {
    queue: Arc<Queue>,
    format: LogFormat,
    level: LogLevel,
}

impl Log {
    /// Sends all `tracing` events and the messages of panics to standard error. The variable BLOCKD_LOG
    /// filters them. If its value is invalid, a warning is logged and the level is `warn`.
    ///
    /// # Errors
    /// If the writing thread cannot be started, or the process has a subscriber for events already.
    pub fn start(format: LogFormat) -> anyhow::Result<Self> {
        let queue = Arc::new(Queue::default());
        let writer = queue.clone();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&writer, &mut io::stderr(), format))?;
        let (filter, warning) = filter(std::env::var("BLOCKD_LOG"));
        let lines = queue.clone();
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(wants_colour())
            .with_target(false)
            // These errors would bypass the queue and block.
            .log_internal_errors(false)
            .with_writer(move || Line(lines.clone()));
        // Each format has a type of its own.
        let (started, level) = match format {
            LogFormat::Text => {
                let builder = builder.with_filter_reloading();
                let handle = builder.reload_handle();
                (builder.try_init(), log_level(move |filter| handle.reload(filter)))
            }
            LogFormat::Json => {
                let builder = builder.json().with_filter_reloading();
                let handle = builder.reload_handle();
                (builder.try_init(), log_level(move |filter| handle.reload(filter)))
            }
        };
        started.map_err(|error| anyhow::anyhow!(error))?;
        let log = Self { queue, format, level };
        let panics = log.queue.clone();
        std::panic::set_hook(Box::new(move |panic| {
            panics.push(message(format, "ERROR", &panic));
        }));
        if let Some(warning) = warning {
            log.report("WARN", &warning);
        }
        Ok(log)
    }

    /// Returns a handle that sets the level of the log.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        self.level.clone()
    }

    /// Waits, for at most a second, until all lines are written.
    pub fn flush(&self) {
        self.queue.wait_until_written(MAX_FLUSH);
    }

    /// Writes a line without applying the filter.
    pub fn report(&self, level: &str, text: &dyn fmt::Display) {
        self.queue.push(message(self.format, level, text));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

fn log_level(set: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync + 'static) -> LogLevel {
    LogLevel(Arc::new(set))
}

/// Formats a line that is not a `tracing` event.
fn message(format: LogFormat, level: &str, text: &dyn fmt::Display) -> Vec<u8> {
    let mut line = match format {
        LogFormat::Text => format!("blockd: {text}"),
        LogFormat::Json => {
            serde_json::json!({"level": level, "fields": {"message": text.to_string()}}).to_string()
        }
    };
    line.push('\n');
    line.into_bytes()
}

/// Returns the filter for this value of BLOCKD_LOG, and a warning if the value is not understood.
fn filter(wanted: Result<String, VarError>) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new(DEFAULT_LEVEL);
    let wanted = match wanted {
        Ok(wanted) if !wanted.trim().is_empty() => wanted,
        Ok(_) | Err(VarError::NotPresent) => return (default(), None),
        Err(VarError::NotUnicode(wanted)) => wanted.to_string_lossy().into_owned(),
    };
    match parse_filter(&wanted) {
        Some(filter) => (filter, None),
        None => {
            let warning = format!(
                "BLOCKD_LOG={} is not understood, so the level is {DEFAULT_LEVEL}; use error, warn, info, debug or trace",
                wanted.escape_debug()
            );
            (default(), Some(warning))
        }
    }
}

/// Returns the filter for a level, or for a list of levels and modules. `None` if it is not understood.
fn parse_filter(wanted: &str) -> Option<EnvFilter> {
    // EnvFilter takes any other word as the name of a module, and turns off the others.
    let is_level = |word: &str| LEVELS.iter().any(|level| word.trim().eq_ignore_ascii_case(level));
    let is_known = |directive: &str| match directive.rsplit_once('=') {
        Some((module, level)) => !module.contains('=') && is_level(level),
        None => is_level(directive),
    };
    if !wanted.split(',').all(is_known) {
        return None;
    }
    EnvFilter::try_new(format!("{DEFAULT_LEVEL},{wanted}")).ok()
}

/// Returns `true` if standard error is a terminal whose user wants colours.
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    io::stderr().is_terminal() && !refused
}

/// Lines for the writer. The lock is never held while a line is written.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// The number of lines that were lost since the last [`Queue::next`].
    lost: u64,
    is_writing: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, mut line: Vec<u8>) {
        if line.len() > MAX_LINE_BYTES {
            line.truncate(MAX_LINE_BYTES - 1);
            line.push(b'\n');
        }
        let mut state = self.lock();
        if state.lines.len() < MAX_WAITING {
            state.lines.push_back(line);
        } else {
            state.lost += 1;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for lines. Returns them, and the number of lines that were lost after them. The writer counts as
    /// busy until the next call.
    fn next(&self) -> (VecDeque<Vec<u8>>, u64) {
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        while state.lines.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_writing = true;
        (std::mem::take(&mut state.lines), std::mem::take(&mut state.lost))
    }

    fn wait_until_written(&self, within: Duration) {
        let state = self.lock();
        let waited = self
            .changed
            .wait_timeout_while(state, within, |state| state.is_writing || !state.lines.is_empty());
        drop(waited);
    }
}

/// The subscriber's output: each write is one line.
struct Line(Arc<Queue>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines for ever, on the writer's thread.
fn write_lines(queue: &Queue, out: &mut (impl Write + AsFd), format: LogFormat) {
    let mut lost = 0;
    loop {
        let (lines, lost_behind) = queue.next();
        for line in lines {
            if lost > 0 && write_line(out, &lost_lines(format, lost)) {
                lost = 0;
            }
            if lost > 0 || !write_line(out, &line) {
                lost += 1;
            }
        }
        lost += lost_behind;
        if lost_behind > 0 && write_line(out, &lost_lines(format, lost)) {
            lost = 0;
        }
    }
}

fn lost_lines(format: LogFormat, count: u64) -> Vec<u8> {
    let text = format_args!("{count} log lines were lost: standard error did not accept them");
    message(format, "WARN", &text)
}

/// Writes a whole line. Returns `false` on an error.
fn write_line(out: &mut (impl Write + AsFd), mut line: &[u8]) -> bool {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return false,
            Ok(count) => line = &line[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Standard error may be a non-blocking pipe.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(out, PollFlags::OUT)];
                match rustix::event::poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return false,
                }
            }
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    /// Starts a thread that writes into a pipe.
    fn writer(format: LogFormat) -> (Arc<Queue>, io::PipeReader, io::PipeWriter) {
        let (read, write) = io::pipe().unwrap();
        let queue = Arc::new(Queue::default());
        let (lines, mut out) = (queue.clone(), write.try_clone().unwrap());
        thread::spawn(move || write_lines(&lines, &mut out, format));
        (queue, read, write)
    }

    fn capacity(pipe: &io::PipeWriter) -> usize {
        rustix::pipe::fcntl_getpipe_size(pipe).unwrap()
    }

    #[test]
    fn c20_lines_that_are_not_read_are_counted() {
        let (queue, read, write) = writer(LogFormat::Text);
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let fits = capacity(&write) / line.len();
        let sent = 3 * (fits + MAX_WAITING);
        for _ in 0..sent {
            queue.push(line.clone());
        }
        queue.push(b"the last\n".to_vec());
        let mut lines = BufReader::new(read).lines();
        let mut next = || lines.next().unwrap().unwrap();
        let (mut written, mut lost) = (0, 0);
        // Each line is written or counted; there may be several counts.
        while written + lost < sent + 1 {
            match next().strip_prefix("blockd: ") {
                Some(count) => lost += count.split_once(' ').unwrap().0.parse::<usize>().unwrap(),
                None => written += 1,
            }
        }
        assert_eq!(written + lost, sent + 1);
        assert!(lost > 0);
        queue.push(b"another\n".to_vec());
        assert_eq!(next(), "another");
    }

    #[test]
    fn c1_a_reader_that_is_gone_costs_lines_only() {
        let (queue, read, _write) = writer(LogFormat::Text);
        drop(read);
        for _ in 0..10 {
            queue.push(b"line\n".to_vec());
        }
        queue.wait_until_written(Duration::MAX);
        assert!(queue.lock().lines.is_empty());
    }

    #[test]
    fn c20_waiting_for_the_writer_has_an_end() {
        let (queue, _read, write) = writer(LogFormat::Text);
        queue.push(vec![b'x'; MAX_LINE_BYTES]);
        for _ in 0..capacity(&write) / MAX_LINE_BYTES {
            queue.push(vec![b'x'; MAX_LINE_BYTES]);
        }
        queue.wait_until_written(Duration::from_millis(1));
        let state = queue.lock();
        assert!(state.is_writing || !state.lines.is_empty());
    }

    #[test]
    fn c31_only_levels_are_understood() {
        let said = |wanted: &str| filter(Ok(wanted.to_owned()));
        for (wanted, means) in [
            ("info", "info"),
            ("WARN", "warn"),
            ("off", "off"),
            ("aio_context=debug", "aio_context=debug,warn"),
            ("aio_context=debug,error", "aio_context=debug,error"),
            ("", "warn"),
        ] {
            let (filter, warning) = said(wanted);
            assert_eq!((filter.to_string().as_str(), warning), (means, None), "{wanted}");
        }
        for wrong in [
            "inof",
            "a=b=c",
            "=",
            "info,",
            "blockd",
            "blockd=loud",
            "warn=info=debug",
            "3\n4",
        ] {
            let (filter, warning) = said(wrong);
            assert_eq!(filter.to_string(), "warn", "{wrong}");
            assert!(warning.unwrap().contains("use error, warn, info"), "{wrong}");
        }
    }

    #[test]
    fn c32_lines_of_json_are_json() {
        let line = message(LogFormat::Json, "WARN", &"\"quoted\"\nand more");
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["fields"]["message"], "\"quoted\"\nand more");
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
