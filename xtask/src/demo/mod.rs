//! `cargo xtask demo`: the real job, measured from outside.
//!
//! It starts daemons, connects idle queues to them, and reads from one busy queue with an embedded client. All daemons of
//! one number of idle queues run side by side, asleep but for the one whose turn it is, and the rounds go through all of
//! them in turn, so that what the machine does meanwhile hits all alike. It judges nothing: ratios with their spread are
//! printed, and a row is written for every run.

mod idle;
mod load;
mod plot;
mod server;
mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use self::load::{Client, Waits};
use self::server::{Kind, Polling, Program, Server};
use crate::cores::{self, Cores};
use crate::interrupt::Interrupt;
use crate::{report, shell};

/// Serve disks with and without idle queues, and compare: requests per second, latency, CPU
///
/// Builds blockd and drives it with an embedded vhost-user client that checks every byte it reads. If
/// qemu-storage-daemon is installed it is measured beside it, in turns.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
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
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "0,64,320,3200")]
    idle: Vec<usize>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
struct Row {
    server: &'static str,
    polling: &'static str,
    idle_queues: usize,
    queue_depth: usize,
    client: &'static str,
    round: usize,
    iops: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    server_cpu_pct: f64,
    verified: bool,
}

/// What the busy client does in a run.
#[derive(Clone, Copy, Debug)]
struct Load {
    depth: usize,
    waits: Waits,
}

const ONE_AT_A_TIME: [Load; 2] = [
    Load { depth: 1, waits: Waits::Spinning },
    Load { depth: 1, waits: Waits::ForEvents },
];
const DEEP: [Load; 2] = [
    Load { depth: 32, waits: Waits::Spinning },
    Load { depth: 32, waits: Waits::ForEvents },
];

fn loads(idle: usize) -> impl Iterator<Item = Load> + Clone {
    let deep = if idle == 0 { &DEEP[..] } else { &[] };
    ONE_AT_A_TIME.into_iter().chain(deep.iter().copied())
}

struct Plan {
    rounds: usize,
    warm_up: Duration,
    time: Duration,
    kinds: Vec<Kind>,
    cores: Option<Cores>,
}

impl Plan {
    fn new(quick: bool) -> Self {
        let (rounds, warm_up, time) = if quick { (2, 100, 300) } else { (5, 150, 600) };
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
        let with = |program| [Polling::Off, Polling::Adaptive].map(|polling| Kind { program, polling });
        Self {
            rounds,
            warm_up: Duration::from_millis(warm_up),
            time: Duration::from_millis(time),
            kinds: programs.into_iter().flat_map(with).collect(),
            cores,
        }
    }

    fn runs(&self, idle: &[usize]) -> usize {
        let loads: usize = idle.iter().map(|idle| loads(*idle).count()).sum();
        loads * self.kinds.len() * self.rounds
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let interrupt = Interrupt::catch()?;
    let began = Instant::now();
    raise_descriptor_limit();
    println!("building blockd (release)");
    shell::run(shell::cargo().args(["build", "--quiet", "--release", "--package", "blockd"]))?;
    let blockd = shell::target_dir()?.join("release").join("blockd");
    let plan = Plan::new(args.quick);
    if let Some(cores) = plan.cores {
        cores::pin(cores.client);
    }
    let bar = ProgressBar::new(plan.runs(&args.idle) as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)")?;
    bar.set_style(style);
    let mut rows = Vec::new();
    let outcome = args
        .idle
        .iter()
        .try_for_each(|idle| measure(&plan, *idle, &blockd, &bar, &interrupt, &mut rows));
    bar.finish_and_clear();
    // What was measured is worth showing, also when the rest failed.
    println!("{}; {}; {:.0?}", report::Machine::this(), report::today(), began.elapsed());
    table::print(&rows);
    if let Some(file) = &args.json {
        report::write_json(file, &rows)?;
    }
    if let Some(file) = &args.plot {
        plot::draw(file, &rows)?;
    }
    outcome
}

/// All runs with one number of idle queues.
fn measure(
    plan: &Plan,
    idle: usize,
    blockd: &Path,
    bar: &ProgressBar,
    interrupt: &Interrupt,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let mut servers = Vec::new();
    for kind in &plan.kinds {
        bar.set_message(format!("starting {} with {idle} idle queues", kind.program.name()));
        interrupt.check()?;
        servers.push(Server::start(*kind, blockd, idle, plan.cores)?);
    }
    for server in &servers {
        let mut client = Client::connect(&server.socket(), server.contents(), Waits::Spinning)?;
        if server.kind().program == Program::Blockd {
            client.fill()?;
        }
    }
    for round in 0..plan.rounds {
        for load in loads(idle) {
            for server in &servers {
                interrupt.check()?;
                let Kind { program, polling } = server.kind();
                bar.set_message(format!(
                    "{}, polling {}, {idle} idle queues, depth {}, {} client",
                    program.name(),
                    polling.name(),
                    load.depth,
                    load.waits.name()
                ));
                let row = one_run(plan, server, load, idle, round);
                rows.push(row.with_context(|| {
                    format!("{}, polling {}, {idle} idle queues, {load:?}", program.name(), polling.name())
                })?);
                bar.inc(1);
            }
        }
    }
    Ok(())
}

fn one_run(plan: &Plan, server: &Server, load: Load, idle: usize, round: usize) -> anyhow::Result<Row> {
    let mut client = Client::connect(&server.socket(), server.contents(), load.waits)?;
    client.run(load.depth, plan.warm_up)?;
    let (began, ran) = (Instant::now(), server.cpu_time()?);
    let measured = client.run(load.depth, plan.time)?;
    let (elapsed, ran) = (began.elapsed(), server.cpu_time()? - ran);
    let micros = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Row {
        server: server.kind().program.name(),
        polling: server.kind().polling.name(),
        idle_queues: idle,
        queue_depth: load.depth,
        client: load.waits.name(),
        round,
        iops: measured.requests as f64 / measured.elapsed.as_secs_f64(),
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
    let raised = Rlimit { current: maximum, maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("cannot raise the limit of open files: {error}");
    }
}
