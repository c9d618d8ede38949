//! The daemon's process: arguments, log, signals, and the line that says it is ready.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::Context as _;
use blockd::{Args, Server};
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = log_filter();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blockd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How much to log: what BLOCKD_LOG says, if that can be understood.
fn log_filter() -> EnvFilter {
    let default = || EnvFilter::new("warn");
    let Ok(wanted) = std::env::var("BLOCKD_LOG") else {
        return default();
    };
    EnvFilter::try_new(&wanted).unwrap_or_else(|error| {
        eprintln!(
            "blockd: BLOCKD_LOG={wanted} is not understood ({error}); say error, warn, info, debug or trace"
        );
        default()
    })
}

fn run(args: &Args) -> anyhow::Result<()> {
    let server = Server::new(args)?;
    let (signalled, by_handler) = UnixStream::pair().context("cannot make a pipe for signals")?;
    for signal in [SIGTERM, SIGINT] {
        let by_handler = by_handler.try_clone().context("cannot make a pipe for signals")?;
        signal_hook::low_level::pipe::register(signal, by_handler).context("cannot handle signals")?;
    }
    let stopper = server.stopper();
    let registration = server
        .context()
        .on(signalled)
        .readable(move |_, _| stopper.stop())
        .watch();
    let _registration = registration
        .map_err(std::io::Error::from)
        .context("cannot wait for signals")?;
    let mut out = std::io::stdout();
    writeln!(out, "ready")
        .and_then(|()| out.flush())
        .context("cannot say that it is ready")?;
    server.run().context("the event loop cannot wait any longer")
}
