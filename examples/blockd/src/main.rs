//! The daemon's process: arguments, log, signals, and the line that says it is ready.
#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use blockd::{Args, Log, Server};
use clap::Parser;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};

/// These end the daemon.
const ENDING: [i32; 4] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP];
/// These would end the process, and mean nothing to it. SIGPIPE is ignored already.
const IGNORED: [i32; 3] = [SIGUSR1, SIGUSR2, SIGXFSZ];
/// How long standard output may refuse the line that says the daemon is ready.
const MAX_WAIT_FOR_OUTPUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args = Args::parse();
    // Without a log there is no one to tell.
    let Ok(log) = Log::start(args.log_format) else {
        return ExitCode::FAILURE;
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.say("ERROR", &format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    // Before the first socket: a signal at any later moment leaves none behind.
    let (signalled, by_handler) = UnixStream::pair().context("cannot make a pipe for signals")?;
    for signal in ENDING {
        // As nohup wants it.
        if signal == SIGHUP && is_ignored(SIGHUP) {
            continue;
        }
        let by_handler = by_handler.try_clone().context("cannot make a pipe for signals")?;
        signal_hook::low_level::pipe::register(signal, by_handler).context("cannot handle signals")?;
    }
    for signal in IGNORED {
        signal_hook::flag::register(signal, std::sync::Arc::default()).context("cannot handle signals")?;
    }
    let server = Server::new(args)?;
    if !say_ready(&signalled).context("cannot say that it is ready")? {
        return Ok(());
    }
    let stopper = server.stopper();
    let registration = server
        .context()
        .on(signalled)
        .readable(move |_, _| stopper.stop())
        .watch();
    let _registration = registration.context("cannot wait for signals")?;
    server.run().context("the event loop cannot wait any longer")
}

/// Whether the process was started with the signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
}

/// Writes the line to standard output; false if a signal comes before there is room for it.
fn say_ready(signalled: &UnixStream) -> anyhow::Result<bool> {
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
            Ok(0) => bail!("standard output is full, and nobody reads it; read it, or send it to a file"),
            Ok(_) if !fds[1].revents().is_empty() => return Ok(false),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    writeln!(out, "ready").and_then(|()| out.flush())?;
    Ok(true)
}
