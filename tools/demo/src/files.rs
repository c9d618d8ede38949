//! Images on a file system: reads and writes of blockd's engines, and those of the daemon to compare with.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aio_tools::cores::Cores;
use aio_tools::interrupt::Interrupt;
use aio_tools::report::median;
use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::client::{Blocks, Client, Job, Waits};
use crate::server::{BLOCKD, Engine, Program, Server};

/// Bytes of the image. It stays in the page cache.
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

/// Those of blockd, then those of the peer. The first is the default.
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

/// Measures all engines in turns, with an image of each in `directory`, and the jobs whose descriptions have all words of `only`.
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
    let engines = ENGINES.iter().filter(|engine| engine.is_available());
    let mut servers = Vec::new();
    for engine in engines {
        let image = place
            .path()
            .join(format!("{}-{}", engine.program.name(), engine.name));
        // Blocks of both sizes begin with the version zero, so each has an image of its own.
        let small = Disk::make(&image, 4 * KIB, *engine, blockd, cores)?;
        let large = Disk::make(&image.with_extension("large"), MIB, *engine, blockd, cores)?;
        servers.push((*engine, [small, large]));
    }
    let is_wanted = |job: &Job| only.iter().all(|word| describe(*job).contains(word.trim()));
    let jobs: Vec<Job> = JOBS.into_iter().filter(is_wanted).collect();
    ensure!(!jobs.is_empty(), "no job has all of {only:?} in its description");
    let progress = ProgressBar::new((rounds * jobs.len() * servers.len()) as u64);
    let mut rows = Vec::new();
    for round in 0..rounds {
        // Each comes first in turn: the first one to write meets what the file system has put off.
        servers.rotate_left(usize::from(round > 0));
        for &job in &jobs {
            for (engine, disks) in &mut servers {
                interrupt.check()?;
                let disk = &mut disks[usize::from(job.block >= MIB)];
                let mut client = Client::connect_for_blocks(&disk.server.socket(), Waits::Spinning, job)?;
                client.run_blocks(&mut disk.blocks, job, time / 5)?;
                let measured = client.run_blocks(&mut disk.blocks, job, time).with_context(|| {
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

/// A daemon with an image.
struct Disk {
    server: Server,
    blocks: Blocks,
}

impl Disk {
    fn make(
        image: &PathBuf,
        block: usize,
        engine: Engine,
        blockd: &Path,
        cores: Option<Cores>,
    ) -> anyhow::Result<Self> {
        let blocks = Blocks::new(IMAGE, block);
        // On the medium, so that the system does not write it back while another one is measured.
        let written = File::create(image).and_then(|mut file| {
            file.write_all(&blocks.image())?;
            file.sync_all()
        });
        written.with_context(|| format!("cannot write {}", image.display()))?;
        let server = Server::start_with_image(engine, blockd, image, cores)?;
        Ok(Self { server, blocks })
    }
}

/// Prints the medians, and ratios of the same round to each engine of the peer.
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
