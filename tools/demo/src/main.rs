//! `cargo xtask demo` measures the real job from outside.
//!
//! It starts daemons, connects idle queues to them, and reads from one busy queue with an embedded client.
//! All daemons run side by side; those that are not being measured sleep. Every round measures all of them,
//! so other load on the machine affects all alike. The demo prints every cell, the ratios with their spread,
//! and the cells where blockd is slower than a peer.
//!
//! | module | purpose |
//! |---|---|
//! | `plan` | servers, loads, rounds, the time of a run |
//! | `measure` | starts the daemons and measures them in turns |
//! | `client`, `idle` | the measuring client; idle connections |
//! | `server` | the daemons |
//! | `files` | images on a file system |
//! | `neighbour`, `freezing` | a disk in memory beside an image that is busy, slow, or hangs |
//! | `iothreads` | two I/O threads over one, for two disks and for two queues of one disk |
//! | `nbd`, `nbd_client` | NBD, beside other servers |
//! | `contended` | polling policies under a quota, and on one core with the client |
//! | `grid`, `predict` | depths and think times: the heat map; the predictions of the simulator |
//! | `row`, `table`, `open_loop`, `summary`, `plot` | figures, printed and drawn |

mod args;
mod client;
mod contended;
mod control_group;
mod files;
mod freezing;
mod grid;
mod idle;
mod iothreads;
mod measure;
mod nbd;
mod nbd_client;
mod neighbour;
mod open_loop;
mod plan;
mod plot;
mod predict;
mod row;
mod server;
mod summary;
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aio_tools::cores::{self, Cores};
use aio_tools::interrupt::Interrupt;
use aio_tools::report::{self, Machine};
use aio_tools::{build, shell};
use anyhow::ensure;
use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::args::Args;
use self::client::{Client, Waits};
use self::plan::Plan;
use self::server::{Kind, Polling, Program, Server};

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
    let built = shell::run(shell::cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "blockd",
        "--bin",
        "blockd",
        "--example",
        "floor",
    ]));
    interrupt.check()?;
    built?;
    let target = shell::target_dir()?;
    let blockd = target.join("release").join("blockd");
    let began = Instant::now();
    let cores = Cores::pick();
    let machine = Machine::measured(cores);
    if let Some(directory) = &args.files {
        return run_files(args, directory, &blockd, (cores, machine), &interrupt);
    }
    if args.contended {
        return run_contended(args, &blockd, (cores, machine), &interrupt);
    }
    if args.iothreads {
        let rows = iothreads::measure(&blockd, pace(args, (2, 200), (7, 500)), &interrupt)?;
        println!("{}; {:.0?}", machine.headline(), began.elapsed());
        iothreads::print(&rows);
        return write_rows(args, machine, &rows);
    }
    if args.nbd {
        if let Some(cores) = cores {
            cores::pin(cores.client);
        }
        let rows = nbd::measure(&blockd, cores, pace(args, (2, 200), (7, 500)), &interrupt)?;
        println!("{}; {:.0?}", machine.headline(), began.elapsed());
        nbd::print(&rows);
        return write_rows(args, machine, &rows);
    }
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
    // The runs before an error are still printed.
    if rows.is_empty() {
        return outcome;
    }
    println!("{}; {:.0?}", machine.headline(), began.elapsed());
    table::print(&rows);
    if args.grid {
        grid::print(&rows);
    } else {
        open_loop::print(&rows);
    }
    if let Some(file) = &args.json {
        report::write_json(file, machine, &rows)?;
    }
    let picture = |name| args.plot.clone().unwrap_or_else(|| target.join(name));
    let picture = if args.grid {
        let file = picture("grid.svg");
        grid::draw(&file, &rows)?;
        file
    } else {
        summary::print(&rows);
        let file = picture("demo.svg");
        plot::draw(&file, &rows)?;
        file
    };
    println!("The picture is {}.", picture.display());
    outcome
}

/// Returns the number of rounds, and the time of a run from the milliseconds of a quick or a full
/// measurement.
fn pace(args: &Args, quick: (usize, u64), full: (usize, u64)) -> (usize, Duration) {
    let (rounds, millis) = if args.quick { quick } else { full };
    (args.rounds.unwrap_or(rounds), Duration::from_millis(millis))
}

fn write_rows(args: &Args, machine: Machine, rows: &[impl serde::Serialize]) -> anyhow::Result<()> {
    match &args.json {
        Some(file) => report::write_json(file, machine, rows),
        None => Ok(()),
    }
}

fn run_files(
    args: &Args,
    directory: &Path,
    blockd: &Path,
    (cores, machine): (Option<Cores>, Machine),
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let (rounds, millis) = if args.quick { (2, 200) } else { (7, 500) };
    let began = Instant::now();
    let pace = (args.rounds.unwrap_or(rounds), Duration::from_millis(millis));
    if let Some(cores) = cores {
        cores::pin(cores.client);
    }
    if args.neighbour {
        let rows = neighbour::measure(directory, blockd, cores, pace, &args.only, interrupt)?;
        println!("{}; {:.0?}", machine.headline(), began.elapsed());
        neighbour::print(&rows);
        return write_rows(args, machine, &rows);
    }
    let rows = files::measure(directory, blockd, cores, pace, &args.only, interrupt)?;
    println!("{}; {:.0?}", machine.headline(), began.elapsed());
    files::print(&rows);
    if let Some(file) = &args.json {
        report::write_json(file, machine, &rows)?;
    }
    Ok(())
}

fn run_contended(
    args: &Args,
    blockd: &Path,
    (cores, machine): (Option<Cores>, Machine),
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let (rounds, millis) = if args.quick { (1, 500) } else { (3, 1000) };
    let pace = (args.rounds.unwrap_or(rounds), Duration::from_millis(millis));
    if let Some(cores) = cores {
        cores::pin(cores.client);
    }
    let rows = contended::measure(blockd, cores, pace, &args.only, interrupt)?;
    println!("{}", machine.headline());
    contended::print(&rows);
    if let Some(file) = &args.json {
        report::write_json(file, machine, &rows)?;
    }
    Ok(())
}

/// Starts a daemon, writes and then reads for `time`, with a client that sleeps and with one that spins,
/// checks every byte, and stops the daemon. Prints the number of reads. It reports no figures, so it may be
/// an unoptimized build.
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
    if program == Program::Blockd {
        requests += nbd::drive(blockd, PART.min(time / 4))?;
        requests += iothreads::drive(blockd, PART.min(time / 4))?;
    }
    println!("{requests} requests, every byte verified");
    Ok(())
}

/// Raises the limit of open descriptors to the maximum, for the sockets of idle connections.
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
