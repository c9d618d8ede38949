//! `cargo xtask demo`: the real job, measured from outside.
//!
//! It starts daemons, connects idle queues to them, and reads from one busy queue with an embedded client. All daemons run
//! side by side, asleep but for the one whose turn it is, and every round goes through all of them, so that what the machine
//! does meanwhile hits all alike. It judges nothing: ratios with their spread are
//! printed, and a row is written for every run.

mod idle;
mod load;
mod open_loop;
mod plot;
mod server;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aio_tools::cores::{self, Cores};
use aio_tools::interrupt::Interrupt;
use aio_tools::{build, report, shell};
use anyhow::{Context as _, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use self::load::{Client, Measured, Waits};
use self::server::{Kind, Polling, Program, Server};

/// Serve disks with and without idle queues, and compare: requests per second, latency, CPU
///
/// Builds blockd and drives it with an embedded vhost-user client that checks every byte it reads. If
/// qemu-storage-daemon is installed it is measured beside it, in turns.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo", version)]
struct Args {
    /// Under a minute: two short rounds instead of five
    #[arg(long)]
    quick: bool,
    /// Write a row for every run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw requests per second over idle queues
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
    /// Only runs that have all of these in their description, as in "adaptive,spin,depth 1"
    #[arg(long, value_name = "WORD,WORD,...", value_delimiter = ',')]
    only: Vec<String>,
    /// How many times everything is measured
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Measures nothing: starts this blockd, writes and reads for some seconds, checks every byte, and stops it
    #[arg(long, value_name = "BLOCKD", hide = true)]
    drive: Option<PathBuf>,
    #[arg(long, value_name = "N", hide = true, requires = "drive", default_value_t = 5)]
    seconds: u64,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
struct Row {
    server: &'static str,
    polling: &'static str,
    idle_queues: usize,
    queue_depth: usize,
    client: String,
    round: usize,
    iops: f64,
    /// Of the quicker 95 %: the machine's own pauses are among the others.
    mean95_us: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    server_cpu_pct: f64,
    verified: bool,
}

/// What the busy client does in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Load {
    /// So many requests are under way all the time.
    Closed { depth: usize, waits: Waits },
    /// So many requests a second, at random moments, whatever the server does.
    Poisson(u32),
}

/// Requests a second of the open-loop client.
const RATES: [u32; 4] = [1000, 10_000, 50_000, 200_000];

impl Load {
    fn depth(self) -> usize {
        match self {
            Self::Closed { depth, .. } => depth,
            Self::Poisson(_) => 1,
        }
    }

    fn client(self) -> String {
        match self {
            Self::Closed { waits, .. } => waits.name().to_owned(),
            Self::Poisson(rate) => format!("poisson-{rate}"),
        }
    }

    fn waits(self) -> Waits {
        match self {
            Self::Closed { waits, .. } => waits,
            Self::Poisson(_) => Waits::Spinning,
        }
    }

    fn run(self, client: &mut Client, time: Duration) -> anyhow::Result<Measured> {
        match self {
            Self::Closed { depth, .. } => client.run(depth, time),
            Self::Poisson(rate) => client.run_poisson(f64::from(rate), time),
        }
    }
}

/// What is measured with so many idle queues. The open loop is about polling policies: ours, and without idle queues.
fn loads(idle: usize, kind: Kind) -> Vec<Load> {
    let closed = |depth| [Waits::Spinning, Waits::ForEvents].map(|waits| Load::Closed { depth, waits });
    let mut loads = Vec::new();
    if kind.polling != Polling::Always {
        loads.extend(closed(1));
        if idle == 0 {
            loads.extend(closed(32));
        }
    }
    if idle == 0 && kind.program == Program::Blockd {
        loads.extend(RATES.map(Load::Poisson));
    }
    loads
}

/// A run in words.
fn describe(kind: Kind, load: Load, idle: usize) -> String {
    format!(
        "{}, polling {}, {idle} idle queues, depth {}, {} client",
        kind.program.name(),
        kind.polling.name(),
        load.depth(),
        load.client()
    )
}

struct Plan {
    rounds: usize,
    warm_up: Duration,
    time: Duration,
    kinds: Vec<Kind>,
    cores: Option<Cores>,
    only: Vec<String>,
}

impl Plan {
    fn new(args: &Args) -> Self {
        let (rounds, warm_up, time) = if args.quick { (2, 80, 180) } else { (5, 150, 500) };
        let mut programs = vec![Program::Blockd];
        if server::peer_is_installed() {
            programs.push(Program::Peer);
        } else {
            println!("qemu-storage-daemon is not installed: blockd is measured alone");
        }
        let cores = Cores::pick();
        if cores.is_none() {
            println!("only one core: client and server share it, and figures mean little");
        }
        let kind = |program, polling| Kind { program, polling };
        let mut kinds = Vec::new();
        for program in programs {
            kinds.extend([kind(program, Polling::Off), kind(program, Polling::Adaptive)]);
        }
        kinds.push(kind(Program::Blockd, Polling::Always));
        Self {
            rounds: args.rounds.unwrap_or(rounds),
            warm_up: Duration::from_millis(warm_up),
            time: Duration::from_millis(time),
            kinds,
            cores,
            only: args.only.clone(),
        }
    }

    /// What is measured with so many idle queues, in this order, in each round: everybody at one load, then at the next.
    fn runs(&self, idle: usize) -> Vec<(Load, Kind)> {
        let mut runs: Vec<(Load, Kind)> = Vec::new();
        for kind in &self.kinds {
            for load in loads(idle, *kind) {
                let description = describe(*kind, load, idle);
                if self.only.iter().all(|word| description.contains(word.trim())) {
                    let after = runs.iter().rposition(|(other, _)| *other == load);
                    runs.insert(after.map_or(runs.len(), |at| at + 1), (load, *kind));
                }
            }
        }
        runs
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    aio_tools::end(match &args.drive {
        Some(blockd) => drive(blockd, Duration::from_secs(args.seconds)),
        None => build::require_optimized("cargo xtask demo").and_then(|()| run(&args)),
    })
}

fn run(args: &Args) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    let began = Instant::now();
    raise_descriptor_limit();
    println!("building blockd (release)");
    shell::run(shell::cargo().args(["build", "--quiet", "--release", "--package", "blockd"]))?;
    let blockd = shell::target_dir()?.join("release").join("blockd");
    let machine = report::Machine::this();
    let plan = Plan::new(args);
    if let Some(cores) = plan.cores {
        cores::pin(cores.client);
    }
    let runs: usize = args.idle.iter().map(|idle| plan.runs(*idle).len()).sum();
    let bar = ProgressBar::new((runs * plan.rounds) as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)")?;
    bar.set_style(style);
    let mut rows = Vec::new();
    let outcome = measure(&plan, &args.idle, &blockd, &bar, &interrupt, &mut rows);
    bar.finish_and_clear();
    // What was measured is worth showing, also when the rest failed.
    println!("{machine}; {}; {:.0?}", report::today(), began.elapsed());
    table::print(&rows);
    open_loop::print(&rows);
    if let Some(file) = &args.json {
        report::write_json(file, machine, &rows)?;
    }
    if let Some(file) = &args.plot {
        plot::draw(file, &rows)?;
    }
    outcome
}

/// Starts a blockd, writes and then reads for so long, by a client that sleeps and by one that spins, every byte checked, and
/// stops it. Prints how many reads there were.
fn drive(blockd: &Path, time: Duration) -> anyhow::Result<()> {
    const DEPTH: usize = 16;
    const PART: Duration = Duration::from_secs(1);
    let interrupt = Interrupt::catch()?;
    let kind = Kind {
        program: Program::Blockd,
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
            requests += client.run(DEPTH, PART.min(time / 2))?.requests;
        }
    }
    println!("{requests} requests, every byte verified");
    Ok(())
}

/// Starts all daemons, with their idle queues, and measures them in turns.
fn measure(
    plan: &Plan,
    idle: &[usize],
    blockd: &Path,
    bar: &ProgressBar,
    interrupt: &Interrupt,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let mut stations = Vec::new();
    for idle in idle {
        stations.push(Station::start(plan, *idle, blockd, bar, interrupt)?);
    }
    for round in 0..plan.rounds {
        for station in &stations {
            for (load, kind) in &station.runs {
                interrupt.check()?;
                let description = describe(*kind, *load, station.idle);
                bar.set_message(description.clone());
                settle(&stations)?;
                for server in station.servers.iter().filter(|server| server.kind() == *kind) {
                    let row = one_run(plan, server, *load, station.idle, round);
                    rows.push(row.with_context(|| description.clone())?);
                }
                bar.inc(1);
            }
        }
    }
    Ok(())
}

/// Waits until all daemons sleep. One that polls goes on for a while after its client has left, and would share the core with
/// the one whose turn is next: that keeps the core awake, which makes wake-ups quicker, and takes whole time slices of it.
fn settle(stations: &[Station]) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(10);
    const PATIENCE: Duration = Duration::from_secs(10);
    let ran = || -> anyhow::Result<Duration> {
        let servers = stations.iter().flat_map(|station| &station.servers);
        servers.map(Server::cpu_time).sum()
    };
    let began = Instant::now();
    loop {
        let (looked, before) = (Instant::now(), ran()?);
        std::thread::sleep(LOOK);
        let busy = ran()?.saturating_sub(before);
        if busy < looked.elapsed() / 20 {
            return Ok(());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "the daemons are still busy {PATIENCE:?} after their last client has left"
        );
    }
}

/// Daemons with the same number of idle queues, and what is measured with them.
struct Station {
    idle: usize,
    servers: Vec<Server>,
    runs: Vec<(Load, Kind)>,
}

impl Station {
    fn start(
        plan: &Plan,
        idle: usize,
        blockd: &Path,
        bar: &ProgressBar,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let runs = plan.runs(idle);
        let mut servers = Vec::new();
        for kind in &plan.kinds {
            if !runs.iter().any(|(_, wanted)| wanted == kind) {
                continue;
            }
            bar.set_message(format!(
                "starting {} with {idle} idle queues",
                kind.program.name()
            ));
            interrupt.check()?;
            let server = Server::start(*kind, blockd, idle, plan.cores)?;
            let mut client = Client::connect(&server.socket(), server.contents(), Waits::Spinning)?;
            if kind.program == Program::Blockd {
                client.fill()?;
            }
            servers.push(server);
        }
        Ok(Self { idle, servers, runs })
    }
}

fn one_run(plan: &Plan, server: &Server, load: Load, idle: usize, round: usize) -> anyhow::Result<Row> {
    let mut client = Client::connect(&server.socket(), server.contents(), load.waits())?;
    load.run(&mut client, plan.warm_up)?;
    let (began, ran) = (Instant::now(), server.cpu_time()?);
    let measured = load.run(&mut client, plan.time)?;
    let (elapsed, ran) = (began.elapsed(), server.cpu_time()? - ran);
    let micros = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Row {
        server: server.kind().program.name(),
        polling: server.kind().polling.name(),
        idle_queues: idle,
        queue_depth: load.depth(),
        client: load.client(),
        round,
        iops: measured.requests as f64 / measured.elapsed.as_secs_f64(),
        mean95_us: measured.mean_of_quickest(0.95) / 1e3,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        p999_us: micros(0.999),
        server_cpu_pct: 100.0 * ran.as_secs_f64() / elapsed.as_secs_f64(),
        // A run with a wrong byte ends with an error instead.
        verified: true,
    })
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
