//! `cargo xtask demo` measures the real job from outside.
//!
//! It starts daemons, connects idle queues to them, and reads from one busy queue with an embedded client. All daemons run
//! side by side. Daemons that are not being measured sleep. Every round measures all of them, so other load on the machine
//! affects all alike. The demo prints every cell, ratios with their spread, and the cells where blockd is behind.
//!
//! | module | is for |
//! |---|---|
//! | `plan` | servers, loads, rounds, the time of a run |
//! | `measure` | starts the daemons and takes turns |
//! | `client`, `idle` | the measuring client; idle connections |
//! | `server` | the daemons |
//! | `row`, `table`, `open_loop`, `summary`, `plot` | figures, printed and drawn |

mod client;
mod idle;
mod measure;
mod open_loop;
mod plan;
mod plot;
mod row;
mod server;
mod summary;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aio_tools::cores::{self, Cores};
use aio_tools::interrupt::Interrupt;
use aio_tools::report::{self, Machine};
use aio_tools::{build, shell};
use anyhow::ensure;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::client::{Client, Waits};
use self::plan::Plan;
use self::server::{Kind, Polling, Program, Server};

/// Serve disks with and without idle queues, and compare: requests per second, latency, CPU
///
/// Builds blockd and drives it with an embedded vhost-user client that checks every byte it reads. If
/// qemu-storage-daemon is installed it is measured beside it, in turns, by the same client. Takes at most three minutes after
/// the build.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo", version)]
struct Args {
    /// At most a minute: two short rounds instead of five
    #[arg(long)]
    quick: bool,
    /// Write a row for every run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to draw requests per second over idle queues [default: demo.svg in the target directory]
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// How many idle queues are connected beside the busy one; rounded up to whole connections of 32
    #[arg(
        long,
        value_name = "N,N,...",
        value_delimiter = ',',
        default_value = "0,64,320,3200"
    )]
    idle: Vec<usize>,
    /// How many requests are under way; beside idle queues only the first of these
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,32", value_parser = depth)]
    depth: Vec<usize>,
    /// How long the client computes before each request, in microseconds
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "0", value_parser = microseconds)]
    think_us: Vec<f64>,
    /// Only runs that have all of these in their description, as in "adaptive,spin,depth 1"
    #[arg(long, value_name = "WORD,WORD,...", value_delimiter = ',')]
    only: Vec<String>,
    /// How many times everything is measured, however long that takes
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Measures nothing: starts this program as blockd, writes and reads for some seconds, checks every byte, and stops it
    #[arg(long, value_name = "BLOCKD", hide = true)]
    drive: Option<PathBuf>,
    /// As --drive, with qemu-storage-daemon
    #[arg(long, hide = true, conflicts_with = "drive")]
    drive_peer: bool,
    #[arg(long, value_name = "N", hide = true, default_value_t = 5)]
    seconds: u64,
}

fn depth(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(depth @ 1..=client::DEEPEST) => Ok(depth),
        _ => Err(format!("a depth is a number from 1 to {}", client::DEEPEST)),
    }
}

fn microseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(micros) if (0.0..=1e6).contains(&micros) => Ok(micros),
        _ => Err("microseconds are a number from 0 to 1000000".to_owned()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seconds = Duration::from_secs(args.seconds);
    aio_tools::end(match &args.drive {
        Some(blockd) => drive(Program::Blockd, blockd, seconds),
        None if args.drive_peer => drive(Program::Peer, Path::new(""), seconds),
        None => build::require_optimized("cargo xtask demo").and_then(|()| run(&args)),
    })
}

fn run(args: &Args) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    raise_descriptor_limit();
    println!("building blockd (release)");
    let built = shell::run(shell::cargo().args(["build", "--release", "--locked", "--package", "blockd"]));
    interrupt.check()?;
    built?;
    let target = shell::target_dir()?;
    let blockd = target.join("release").join("blockd");
    let began = Instant::now();
    let cores = Cores::pick();
    let machine = Machine::measured(cores);
    let plan = Plan::new(args, cores);
    ensure!(
        plan.runs_of_a_round() > 0,
        "no run has all of {:?} in its description",
        args.only
    );
    if let Some(cores) = cores {
        cores::pin(cores.client);
    }
    let mut rows = Vec::new();
    let outcome = measure::measure(&plan, &blockd, began, &interrupt, &mut rows);
    // Runs before an error are still worth showing.
    if rows.is_empty() {
        return outcome;
    }
    println!("{}; {:.0?}", machine.headline(), began.elapsed());
    table::print(&rows);
    open_loop::print(&rows);
    if let Some(file) = &args.json {
        report::write_json(file, machine, &rows)?;
    }
    summary::print(&rows);
    let picture = args.plot.clone().unwrap_or_else(|| target.join("demo.svg"));
    plot::draw(&picture, &rows)?;
    println!("The picture is {}.", picture.display());
    outcome
}

/// Starts a daemon, writes and then reads for so long, by a client that sleeps and by one that spins, every byte checked, and
/// stops it. Prints how many reads there were. Reports no figures, so it may be an unoptimized build.
fn drive(program: Program, blockd: &Path, time: Duration) -> anyhow::Result<()> {
    const DEPTH: usize = 16;
    const PART: Duration = Duration::from_secs(1);
    let interrupt = Interrupt::catch()?;
    let kind = Kind {
        program,
        polling: Polling::Adaptive,
    };
    let server = Server::start(kind, blockd, 64, None)?;
    Client::connect(&server.socket(), server.contents(), Waits::Spinning)?.fill()?;
    let mut requests = 0;
    for waits in [Waits::ForEvents, Waits::Spinning] {
        let mut client = Client::connect(&server.socket(), server.contents(), waits)?;
        let began = Instant::now();
        while began.elapsed() < time / 2 {
            interrupt.check()?;
            requests += client.run(DEPTH, Duration::ZERO, PART.min(time / 2))?.requests;
        }
    }
    println!("{requests} requests, every byte verified");
    Ok(())
}

/// Sockets of idle connections: as many as the system allows.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("cannot raise the limit of open files: {error}");
    }
}
