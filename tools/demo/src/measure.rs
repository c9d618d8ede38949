//! Starts the daemons and measures them in turns.

use std::path::Path;
use std::time::{Duration, Instant};

use aio_tools::build;
use aio_tools::interrupt::Interrupt;
use anyhow::{Context as _, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{Client, Waits};
use crate::plan::{Load, Pace, Plan, describe};
use crate::row::Row;
use crate::server::{Kind, Server};

/// A progress bar that shows the current measurement. Without a terminal it prints a line for each stage.
struct Progress(ProgressBar);

impl Progress {
    fn new(runs: usize) -> anyhow::Result<Self> {
        let bar = ProgressBar::new(runs as u64);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)")?;
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Ok(Self(bar))
    }

    fn stage(&self, text: String) {
        if self.0.is_hidden() {
            eprintln!("{text}");
        }
        self.0.set_message(text);
    }
}

/// Starts all daemons, with their idle queues, and measures them in turns: every round goes through all of them.
pub(crate) fn measure(
    plan: &Plan,
    blockd: &Path,
    began: Instant,
    interrupt: &Interrupt,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let progress = Progress::new(plan.runs_of_a_round() * plan.rounds)?;
    let mut stations = Vec::new();
    for idle in plan.idle() {
        stations.push(Station::start(plan, *idle, blockd, &progress, interrupt)?);
    }
    let pace = plan.pace(began.elapsed());
    let mut longest_round = Duration::ZERO;
    for round in 0..plan.rounds {
        if round > 0 && plan.is_over(began.elapsed(), longest_round) {
            progress.0.suspend(|| {
                println!(
                    "{round} of {} rounds: another one would take more than {} s in all",
                    plan.rounds,
                    plan.time.as_secs()
                );
            });
            break;
        }
        let of_round = Instant::now();
        progress.stage(format!(
            "round {} of {}: {} runs of {:.0?}",
            round + 1,
            plan.rounds,
            plan.runs_of_a_round(),
            pace.time
        ));
        for station in &stations {
            for (load, kind) in &station.runs {
                interrupt.check()?;
                let description = describe(*kind, *load, station.idle);
                progress.0.set_message(description.clone());
                settle(|| {
                    let servers = stations.iter().flat_map(|station| &station.servers);
                    servers.map(Server::cpu_time).sum()
                })?;
                for server in station.servers.iter().filter(|server| server.kind() == *kind) {
                    let row = one_run(pace, server, *load, station.idle, round);
                    rows.push(row.with_context(|| description.clone())?);
                }
                progress.0.inc(1);
            }
        }
        longest_round = longest_round.max(of_round.elapsed());
    }
    progress.0.finish_and_clear();
    Ok(())
}

/// Waits until all daemons sleep; `ran` returns their total processor time so far. A daemon that polls
/// continues for a while after its client has left, and would share the core with the daemon that is measured
/// next. It would keep the core awake, which makes wake-ups quicker, and take whole time slices of it.
pub(crate) fn settle(ran: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<()> {
    const CHECK_EVERY: Duration = Duration::from_millis(10);
    const TIMEOUT: Duration = Duration::from_secs(10);
    let began = Instant::now();
    loop {
        let (checked, before) = (Instant::now(), ran()?);
        std::thread::sleep(CHECK_EVERY);
        let busy = ran()?.saturating_sub(before);
        if busy < checked.elapsed() / 20 {
            return Ok(());
        }
        ensure!(
            began.elapsed() < TIMEOUT,
            "the daemons are still busy {TIMEOUT:?} after their last client has left"
        );
    }
}

/// Daemons with the same number of idle queues, and the measurements with them.
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
        progress: &Progress,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let runs = plan.runs(idle);
        let mut servers = Vec::new();
        for kind in &plan.kinds {
            if !runs.iter().any(|(_, wanted)| wanted == kind) {
                continue;
            }
            progress.stage(format!(
                "starting {} with {idle} idle queues, polling {}",
                kind.program.name(),
                kind.polling.name()
            ));
            interrupt.check()?;
            let server = Server::start(*kind, blockd, idle, plan.cores)?;
            Client::connect(&server.socket(), server.contents(), Waits::Spinning)?.fill()?;
            servers.push(server);
        }
        Ok(Self { idle, servers, runs })
    }
}

pub(crate) fn one_run(
    pace: Pace,
    server: &Server,
    load: Load,
    idle: usize,
    round: usize,
) -> anyhow::Result<Row> {
    let mut client = Client::connect(&server.socket(), server.contents(), load.waits())?;
    load.run(&mut client, pace.warm_up)?;
    let (began, ran) = (Instant::now(), server.cpu_time()?);
    let measured = load.run(&mut client, pace.time)?;
    let (elapsed, ran) = (began.elapsed(), server.cpu_time()? - ran);
    let micros = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    let requests = measured.requests.max(1) as f64;
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / requests;
    let mean95_us = measured.mean_of_quickest(0.95) / 1e3;
    let kicks = measured.kicks;
    Ok(Row {
        server: server.kind().program.name(),
        polling: server.kind().polling.name(),
        idle_queues: idle,
        queue_depth: load.depth(),
        client: load.client(),
        think_us: load.think().as_secs_f64() * 1e6,
        round,
        iops: measured.requests as f64 / measured.elapsed.as_secs_f64(),
        mean95_us,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        p999_us: micros(0.999),
        server_cpu_pct: 100.0 * ran.as_secs_f64() / elapsed.as_secs_f64(),
        kicks_per_request: kicks.count as f64 / requests,
        kick_us: kicks.time.as_secs_f64() * 1e6 / kicks.count.max(1) as f64,
        cost_us: per_request(ran) + mean95_us + per_request(kicks.time),
        // A run with a wrong byte ends with an error instead.
        verified: true,
        profile: build::PROFILE,
    })
}
