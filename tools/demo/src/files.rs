//! Images on a file system: reads and writes with blockd's engines, and with those of the daemon to compare
//! with.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use aio_tools::cores::Cores;
use aio_tools::interrupt::Interrupt;
use aio_tools::report::median;
use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::args::has_all;
use crate::client::{Blocks, Client, Job, Waits};
use crate::server::{BLOCKD, Engine, Program, Server};

/// The bytes of the image. It stays in the page cache.
const IMAGE: u64 = 256 << 20;
pub(crate) const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const fn of_blockd(name: &'static str) -> Engine {
    Engine {
        program: Program::Blockd,
        name,
    }
}

const fn of_peer(name: &'static str) -> Engine {
    Engine {
        program: Program::Peer,
        name,
    }
}

/// The engines of blockd, then those of the peer. The first one is the default.
pub(crate) const ENGINES: [Engine; 6] = [
    of_blockd("auto"),
    of_blockd("uring"),
    of_blockd("threads"),
    of_blockd("sync"),
    of_peer("threads"),
    of_peer("io_uring"),
];

const fn job(writes: bool, in_order: bool, depth: usize, block: usize) -> Job {
    Job {
        writes,
        in_order,
        depth,
        block,
    }
}

const JOBS: [Job; 6] = [
    job(false, false, 1, 4 * KIB),
    job(false, false, 32, 4 * KIB),
    job(true, false, 1, 4 * KIB),
    job(true, false, 32, 4 * KIB),
    job(false, true, 4, MIB),
    job(true, true, 4, MIB),
];

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    server: &'static str,
    engine: &'static str,
    job: String,
    queue_depth: usize,
    block: usize,
    round: usize,
    iops: f64,
    p50_us: f64,
    p99_us: f64,
    verified: bool,
}

fn describe(job: Job) -> String {
    let order = if job.in_order { "sequential" } else { "random" };
    let what = if job.writes { "write" } else { "read" };
    let size = if job.block < MIB {
        format!("{} KiB", job.block / KIB)
    } else {
        format!("{} MiB", job.block / MIB)
    };
    format!("{order} {what} {size}, depth {}", job.depth)
}

/// Measures all engines in turns, with an image in `directory` that they share. Runs the jobs whose
/// descriptions have all words of `only`.
pub(crate) fn measure(
    directory: &Path,
    blockd: &Path,
    cores: Option<Cores>,
    (rounds, time): (usize, Duration),
    only: &[String],
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let place = tempfile::tempdir_in(directory)
        .with_context(|| format!("cannot make images in {}", directory.display()))?;
    let engines: Vec<Engine> = ENGINES
        .into_iter()
        .filter(|engine| engine.is_available())
        .collect();
    let start = |block| Image::make(place.path(), block, (&engines, blockd), cores);
    let mut images = [start(4 * KIB)?, start(MIB)?];
    // The numbers of the engines.
    let mut order: Vec<usize> = (0..engines.len()).collect();
    let is_wanted = |job: &Job| has_all(&describe(*job), only);
    let jobs: Vec<Job> = JOBS.into_iter().filter(is_wanted).collect();
    ensure!(!jobs.is_empty(), "no job has all of {only:?} in its description");
    let progress = ProgressBar::new((rounds * jobs.len() * engines.len()) as u64);
    let mut rows = Vec::new();
    for round in 0..rounds {
        // Each engine is first in turn, because the first one to write also pays for the writes that the file
        // system has deferred.
        order.rotate_left(usize::from(round > 0));
        for &job in &jobs {
            for &number in &order {
                interrupt.check()?;
                let engine = engines[number];
                let image = &mut images[usize::from(job.block >= MIB)];
                let socket = image.servers[number].socket();
                let mut client = Client::connect_for_blocks(&socket, Waits::Spinning, job)?;
                client.run_blocks(&mut image.blocks, job, time / 5)?;
                let measured = client.run_blocks(&mut image.blocks, job, time).with_context(|| {
                    format!("{} {}, {}", engine.program.name(), engine.name, describe(job))
                })?;
                rows.push(Row {
                    server: engine.program.name(),
                    engine: engine.name,
                    job: describe(job),
                    queue_depth: job.depth,
                    block: job.block,
                    round,
                    iops: measured.requests as f64 / measured.elapsed.as_secs_f64(),
                    p50_us: measured.latency.value_at_quantile(0.5) as f64 / 1e3,
                    p99_us: measured.latency.value_at_quantile(0.99) as f64 / 1e3,
                    verified: true,
                });
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}

/// An image that all servers share. They take turns, so each reads the blocks that the client has written
/// through another one. All use the same pages of the page cache, because the choice of pages can change the
/// rate of writes by a factor of two.
struct Image {
    servers: Vec<Server>,
    blocks: Blocks,
}

impl Image {
    fn make(
        directory: &Path,
        block: usize,
        (engines, blockd): (&[Engine], &Path),
        cores: Option<Cores>,
    ) -> anyhow::Result<Self> {
        let blocks = Blocks::new(IMAGE, block);
        let path = directory.join(format!("image-{block}"));
        // On the medium, so that the system does not write it back during the measurement.
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&blocks.image())?;
            file.sync_all()
        });
        written.with_context(|| format!("cannot write {}", path.display()))?;
        let start = |engine: &Engine| Server::start_with_image(*engine, blockd, &path, cores);
        let servers = engines.iter().map(start).collect::<anyhow::Result<_>>()?;
        Ok(Self { servers, blocks })
    }
}

/// Prints the medians, and the ratios to each engine of the peer in the same round.
pub(crate) fn print(rows: &[Row]) {
    for job in JOBS.map(describe) {
        if !rows.iter().any(|row| row.job == job) {
            continue;
        }
        println!("\n{job}");
        for engine in ENGINES {
            let of = |engine: Engine, round: usize| {
                let is_it = |row: &&Row| {
                    (row.server, row.engine, row.round) == (engine.program.name(), engine.name, round)
                        && row.job == job
                };
                rows.iter().find(is_it).cloned()
            };
            let rounds = rows.iter().map(|row| row.round + 1).max().unwrap_or(0);
            let runs: Vec<Row> = (0..rounds).filter_map(|round| of(engine, round)).collect();
            if runs.is_empty() {
                continue;
            }
            let of_all = |figure: fn(&Row) -> f64| median(&runs.iter().map(figure).collect::<Vec<f64>>());
            let mut line = format!(
                "  {:<20} {:<9} {:>9.0} requests/s, p50 {:>7.1} us, p99 {:>8.1} us",
                engine.program.name(),
                engine.name,
                of_all(|row| row.iops),
                of_all(|row| row.p50_us),
                of_all(|row| row.p99_us),
            );
            for peer in ENGINES
                .iter()
                .filter(|peer| peer.program != Program::Blockd && engine.program.name() == BLOCKD)
            {
                let ratio = |row: &Row| Some(row.iops / of(*peer, row.round)?.iops);
                let mut ratios: Vec<f64> = runs.iter().filter_map(ratio).collect();
                ratios.sort_by(f64::total_cmp);
                if let (Some(least), Some(most)) = (ratios.first(), ratios.last()) {
                    line += &format!(
                        "; over {} {:.2} [{least:.2} - {most:.2}]",
                        peer.name,
                        median(&ratios)
                    );
                }
            }
            println!("{line}");
        }
    }
}
