//! The daemon's process: arguments, log, signals, and the line `ready`.
#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use blockd::{Args, Command, CtlArgs, Log, PassedSockets, PidFile, Process, Server};
use clap::Parser;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};

/// Signals that end the daemon.
const ENDING: [i32; 4] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP];
/// Signals that are handled without an effect, because their default action would end the process. The
/// standard library ignores SIGPIPE.
const IGNORED: [i32; 3] = [SIGUSR1, SIGUSR2, SIGXFSZ];
/// The longest wait for space in standard output for the line `ready`.
const MAX_WAIT_FOR_OUTPUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Ctl(args)) = &args.command {
        return control(args);
    }
    // This precedes any other descriptor or thread.
    let sockets = PassedSockets::from_environment();
    // Without a log the error cannot be reported.
    let Ok(log) = Log::start(args.log_format) else {
        return ExitCode::FAILURE;
    };
    match run(&args, &log, sockets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.report("ERROR", &format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, log: &Log, sockets: anyhow::Result<PassedSockets>) -> anyhow::Result<()> {
    // This precedes the first socket, so that a signal at any moment leaves no socket behind.
    let (signalled, by_handler) = UnixStream::pair().context("cannot make a pipe for signals")?;
    for signal in ENDING {
        // nohup starts the daemon with SIGHUP ignored.
        if signal == SIGHUP && is_ignored(SIGHUP) {
            continue;
        }
        let by_handler = by_handler.try_clone().context("cannot make a pipe for signals")?;
        signal_hook::low_level::pipe::register(signal, by_handler).context("cannot handle signals")?;
    }
    for signal in IGNORED {
        signal_hook::flag::register(signal, std::sync::Arc::default()).context("cannot handle signals")?;
    }
    let process = Process {
        log_level: Some(log.level()),
        sockets: sockets?,
    };
    let _pid_file = args.pidfile.as_deref().map(PidFile::create).transpose()?;
    let server = Server::in_process(args, &process)?;
    // The warnings precede the line, even if both go to one file.
    log.flush();
    if !write_ready(&signalled).context("cannot write the line \"ready\" to standard output")? {
        return Ok(());
    }
    blockd::notify("READY=1\nSTATUS=serving");
    let stopper = server.stopper();
    let registration = server
        .context()
        .on(signalled)
        .readable(move |_, _| stopper.stop())
        .watch();
    let _registration = registration
        .map_err(std::io::Error::from)
        .context("cannot wait for signals")?;
    let ended = server.run();
    blockd::notify("STOPPING=1\nSTATUS=completing requests");
    // If a loop has failed, the others still complete their requests.
    let finished = server.finish();
    ended.and(finished).context("an event loop has failed")
}

/// Standard output.
#[derive(Default)]
struct Output {
    /// Set when its reader has closed it.
    is_closed: bool,
}

impl Output {
    fn check<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.is_closed |= matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = io::stdout().write(bytes);
        self.check(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = io::stdout().flush();
        self.check(flushed)
    }
}

/// Controls another daemon.
fn control(args: &CtlArgs) -> ExitCode {
    let mut out = Output::default();
    let Err(error) = blockd::ctl(args, &mut out) else {
        return ExitCode::SUCCESS;
    };
    // A reader that closes the pipe, such as `head`, needs no more output.
    if out.is_closed {
        return ExitCode::SUCCESS;
    }
    // If standard error is closed, the status alone reports the error.
    let _ = writeln!(io::stderr(), "blockd: {error:#}");
    ExitCode::FAILURE
}

/// Returns `true` if the process was started with the signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
}

/// Writes the line `ready` to standard output. Returns `false` if a signal arrives before there is space for
/// it.
fn write_ready(signalled: &UnixStream) -> anyhow::Result<bool> {
    let mut out = io::stdout();
    let deadline = Instant::now() + MAX_WAIT_FOR_OUTPUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [
            PollFd::new(&out, PollFlags::OUT),
            PollFd::new(signalled, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => bail!("it is full and is not read; read it, or redirect it to a file"),
            Ok(_) if !fds[1].revents().is_empty() => return Ok(false),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    writeln!(out, "ready").and_then(|()| out.flush())?;
    Ok(true)
}
