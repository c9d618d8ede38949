//! A disk in memory alone, and beside an image of the same daemon that keeps its medium busy or hangs (C9, P17).
//!
//! The client of the disk in memory spins; that of the image sleeps, on the same core. All threads of a daemon share its core, as those of the
//! kernel that work for it. So an image takes some of the core in any case, and least of it while it hangs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aio_tools::build;
use aio_tools::cores::Cores;
use aio_tools::interrupt::Interrupt;
use aio_tools::report::{median, range};
use anyhow::{Context as _, anyhow};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::client::{Blocks, Client, Contents, Job, Waits};
use crate::files::{ENGINES, KIB};
use crate::freezing::Freezable;
use crate::server::{Engine, Server};

/// Bytes of an image.
const IMAGE: u64 = 64 << 20;
/// The least rate beside an image, over that alone.
const LEAST_RATE: f64 = 0.9;
/// The most p99 beside an image, over that alone.
const MOST_P99: f64 = 2.0;
/// How long a request takes at least that was not served at all.
const STALLED: Duration = Duration::from_secs(2);

/// What the image does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Alone,
    /// Writes one at a time, each followed by a flush: it waits for the medium.
    Flushing,
    /// Writes, 32 at a time.
    Busy,
    /// Its file system is frozen, and 32 writes hang.
    Frozen,
}

const ALL: [Beside; 4] = [Beside::Alone, Beside::Flushing, Beside::Busy, Beside::Frozen];

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Flushing => "flushing",
            Self::Busy => "busy",
            Self::Frozen => "frozen",
        }
    }

    fn job(self) -> Job {
        Job {
            writes: true,
            in_order: false,
            depth: if self == Self::Flushing { 1 } else { 32 },
            block: 4 * KIB,
        }
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    server: &'static str,
    engine: &'static str,
    /// What the image does meanwhile.
    beside: &'static str,
    queue_depth: usize,
    round: usize,
    /// Of the disk in memory; zero if it was not served.
    iops: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    /// Of the image.
    image_iops: f64,
    verified: bool,
    profile: &'static str,
}

/// A daemon, and the blocks of its images: one in the directory, one on a file system that can be frozen.
struct Daemon {
    engine: Engine,
    server: Server,
    blocks: Vec<Blocks>,
}

impl Daemon {
    fn start(engine: Engine, blockd: &Path, places: &[&Path], cores: Option<Cores>) -> anyhow::Result<Self> {
        let (mut images, mut blocks): (Vec<PathBuf>, Vec<Blocks>) = (Vec::new(), Vec::new());
        for place in places {
            let image = place.join(format!("{}-{}", engine.program.name(), engine.name));
            // With its storage, so that writes need none.
            let of_image = Blocks::new(IMAGE / 4, 4 * KIB);
            fs::write(&image, of_image.image())
                .with_context(|| format!("cannot write {}", image.display()))?;
            images.push(image);
            blocks.push(of_image);
        }
        let server = Server::start_beside_images(engine, blockd, &images, cores)?;
        Client::connect(&server.socket(), Contents::PATTERN, Waits::ForEvents)?.fill()?;
        Ok(Self {
            engine,
            server,
            blocks,
        })
    }

    fn name(&self) -> String {
        format!("{} {}", self.engine.program.name(), self.engine.name)
    }
}

/// Measures all daemons in turns, with an image of each in `directory`.
pub(crate) fn measure(
    directory: &Path,
    blockd: &Path,
    cores: Option<Cores>,
    (rounds, time): (usize, Duration),
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let place = tempfile::tempdir_in(directory)
        .with_context(|| format!("cannot make images in {}", directory.display()))?;
    let frozen = Freezable::mount(place.path());
    if let Err(error) = &frozen {
        println!("skipped: no file system that can be frozen: {error:#}");
    }
    let system = frozen.as_ref().ok();
    let places: Vec<&Path> = [Some(place.path()), system.map(Freezable::path)]
        .into_iter()
        .flatten()
        .collect();
    let engines = ENGINES.iter().filter(|engine| engine.is_available());
    let daemons = engines.map(|engine| Daemon::start(*engine, blockd, &places, cores));
    let mut daemons = daemons.collect::<anyhow::Result<Vec<Daemon>>>()?;
    let all: Vec<Beside> = ALL
        .into_iter()
        .filter(|beside| *beside != Beside::Frozen || system.is_some())
        .collect();
    let progress = ProgressBar::new((rounds * all.len() * daemons.len()) as u64);
    let mut rows = Vec::new();
    for round in 0..rounds {
        for daemon in &mut daemons {
            for beside in &all {
                interrupt.check()?;
                let row = one_run(daemon, *beside, system, time);
                let row = row.with_context(|| format!("{}, {}", daemon.name(), beside.name()))?;
                rows.push(Row { round, ..row });
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}

fn one_run(
    daemon: &mut Daemon,
    beside: Beside,
    system: Option<&Freezable>,
    time: Duration,
) -> anyhow::Result<Row> {
    let job = beside.job();
    let image = usize::from(beside == Beside::Frozen);
    let (server, blocks) = (&daemon.server, &mut daemon.blocks[image]);
    let connect = || Client::connect_for_blocks(&server.beside(image), Waits::ForEvents, job);
    // Before anything hangs.
    let mut neighbour = Client::connect(&server.socket(), Contents::PATTERN, Waits::Spinning)?;
    let row = match (beside, system) {
        (Beside::Flushing | Beside::Busy, _) => {
            let (client, is_over) = (connect()?, AtomicBool::new(false));
            let is_over = &is_over;
            std::thread::scope(|scope| {
                let working = scope.spawn(move || keep_busy(client, blocks, job, is_over));
                let row = run_neighbour(&mut neighbour, time);
                is_over.store(true, Ordering::Relaxed);
                let requests = working.join().map_err(|_| anyhow!("a client has panicked"))??;
                let row = row?;
                let image_iops = requests as f64 / time.as_secs_f64();
                anyhow::Ok(Row { image_iops, ..row })
            })?
        }
        (Beside::Frozen, Some(system)) => {
            let mut client = connect()?;
            let frozen = system.freeze()?;
            let offered = client.offer_writes(blocks, job);
            let row = offered.and_then(|()| run_neighbour(&mut neighbour, time));
            drop(frozen);
            let row = row?;
            client.await_writes(job)?;
            row
        }
        _ => run_neighbour(&mut neighbour, time)?,
    };
    Ok(Row {
        server: daemon.engine.program.name(),
        engine: daemon.engine.name,
        beside: beside.name(),
        ..row
    })
}

/// Keeps the image busy. Returns the number of its requests.
fn keep_busy(mut client: Client, blocks: &mut Blocks, job: Job, is_over: &AtomicBool) -> anyhow::Result<u64> {
    const PART: Duration = Duration::from_millis(20);
    let is_over = || is_over.load(Ordering::Relaxed);
    if job.depth == 1 {
        return client.write_and_flush(blocks, job, is_over);
    }
    let mut requests = 0;
    while !is_over() {
        requests += client.run_blocks(blocks, job, PART)?.requests;
    }
    Ok(requests)
}

/// Reads from the disk in memory. If it is not served at all, its rate is zero.
fn run_neighbour(client: &mut Client, time: Duration) -> anyhow::Result<Row> {
    const DEPTH: usize = 1;
    let mut run = |time| client.run(DEPTH, Duration::ZERO, time);
    let measured = run(time / 5).and_then(|_| run(time));
    let mut row = Row {
        server: "",
        engine: "",
        beside: "",
        queue_depth: DEPTH,
        round: 0,
        iops: 0.0,
        p50_us: STALLED.as_secs_f64() * 1e6,
        p99_us: STALLED.as_secs_f64() * 1e6,
        p999_us: STALLED.as_secs_f64() * 1e6,
        image_iops: 0.0,
        // A run with a wrong byte ends with an error instead.
        verified: true,
        profile: build::PROFILE,
    };
    match measured {
        Ok(measured) => {
            let micros = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
            row.iops = measured.requests as f64 / measured.elapsed.as_secs_f64();
            (row.p50_us, row.p99_us, row.p999_us) = (micros(0.5), micros(0.99), micros(0.999));
            Ok(row)
        }
        Err(error) if error.to_string().contains("takes longer") => Ok(row),
        Err(error) => Err(error),
    }
}

/// Prints medians, and ratios of the same round to the disk alone.
pub(crate) fn print(rows: &[Row]) {
    println!("\na disk in memory, depth 1, and what an image of the same daemon does meanwhile");
    for engine in ENGINES {
        let of_engine: Vec<&Row> = rows
            .iter()
            .filter(|row| (row.server, row.engine) == (engine.program.name(), engine.name))
            .collect();
        for beside in ALL {
            let runs: Vec<&Row> = of_engine
                .iter()
                .copied()
                .filter(|row| row.beside == beside.name())
                .collect();
            if runs.is_empty() {
                continue;
            }
            let of_all =
                |figure: fn(&Row) -> f64| median(&runs.iter().map(|row| figure(row)).collect::<Vec<f64>>());
            let mut line = format!(
                "  {:<20} {:<9} {:<9} {:>9.0} requests/s, p50 {:>7.1} us, p99 {:>9.1} us",
                engine.program.name(),
                engine.name,
                beside.name(),
                of_all(|row| row.iops),
                of_all(|row| row.p50_us),
                of_all(|row| row.p99_us),
            );
            if beside != Beside::Alone {
                line += &verdict(&of_engine, &runs);
                line += &format!("; image {:.0}/s", of_all(|row| row.image_iops));
            }
            println!("{line}");
        }
    }
}

/// The ratios to the disk alone, and whether they reach the goals.
fn verdict(of_engine: &[&Row], runs: &[&Row]) -> String {
    let ratios = |figure: fn(&Row) -> f64| -> Vec<f64> {
        let alone = |round| {
            of_engine
                .iter()
                .find(|row| row.beside == Beside::Alone.name() && row.round == round)
        };
        runs.iter()
            .filter_map(|row| Some(figure(row) / figure(alone(row.round)?)))
            .collect()
    };
    let (rates, p99s) = (ratios(|row| row.iops), ratios(|row| row.p99_us));
    if rates.is_empty() {
        return String::new();
    }
    let is_kept = median(&rates) >= LEAST_RATE && median(&p99s) < MOST_P99;
    let (least, most) = range(&rates);
    format!(
        "; rate {:.2} [{least:.2} - {most:.2}], p99 {:.1}: {}",
        median(&rates),
        median(&p99s),
        if is_kept { "kept" } else { "not kept" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(beside: Beside, round: usize, iops: f64, p99_us: f64) -> Row {
        Row {
            server: "blockd",
            engine: "uring",
            beside: beside.name(),
            queue_depth: 1,
            round,
            iops,
            p50_us: 1.0,
            p99_us,
            p999_us: p99_us,
            image_iops: 0.0,
            verified: true,
            profile: build::PROFILE,
        }
    }

    #[test]
    fn c9_a_neighbour_is_compared_with_itself_in_the_same_round() {
        let rows = [
            row(Beside::Alone, 0, 100.0, 10.0),
            row(Beside::Frozen, 0, 95.0, 15.0),
            row(Beside::Alone, 1, 1000.0, 10.0),
            row(Beside::Frozen, 1, 900.0, 15.0),
            row(Beside::Busy, 0, 89.0, 15.0),
            row(Beside::Busy, 1, 890.0, 15.0),
            row(Beside::Flushing, 1, 950.0, 20.0),
        ];
        let all: Vec<&Row> = rows.iter().collect();
        let of = |beside: Beside| {
            let runs: Vec<&Row> = all
                .iter()
                .copied()
                .filter(|row| row.beside == beside.name())
                .collect();
            verdict(&all, &runs)
        };
        assert_eq!(of(Beside::Frozen), "; rate 0.93 [0.90 - 0.95], p99 1.5: kept");
        assert!(of(Beside::Busy).ends_with("not kept"));
        assert!(of(Beside::Flushing).ends_with("p99 2.0: not kept"));
    }
}
