//! A disk in memory alone, and beside an image of the same daemon that keeps its medium busy, is slow, or
//! hangs (C9, P17).
//!
//! The client of the disk in memory spins. The client of the image sleeps, on the same core. All threads of a
//! daemon share its core, and so do the kernel threads that work for it. So an image always takes some of the
//! core: least while it hangs, and little if it is slow. For a slow image the control group of the daemon
//! limits the writes to the image's device, so that each of them waits in the kernel.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aio_tools::build;
use aio_tools::cores::Cores;
use aio_tools::interrupt::Interrupt;
use aio_tools::report::{median, range};
use anyhow::{Context as _, anyhow, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::args::has_all;
use crate::client::{Blocks, Client, Contents, Job, Waits};
use crate::control_group::{ControlGroup, Limit};
use crate::files::{ENGINES, KIB};
use crate::freezing::Freezable;
use crate::server::{Engine, Image, Server};

/// The bytes of an image.
const IMAGE: u64 = 64 << 20;
/// The least permitted ratio of the rate beside an image to that alone.
const LEAST_RATE: f64 = 0.9;
/// The highest permitted ratio of the p99 beside an image to that alone.
const MOST_P99: f64 = 2.0;
/// The most writes a second of a slow image, and the number that wait at a time: each waits for 10 ms.
const SLOW_WRITES: u32 = 400;
const SLOW_DEPTH: usize = 4;
/// The least latency of a request that counts as not served.
const STALLED: Duration = Duration::from_secs(2);

/// The load of the image during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Alone,
    /// Writes one at a time, each followed by a flush, which waits for the medium.
    Flushing,
    /// 32 writes at a time.
    Busy,
    /// Writes to a device that takes 10 ms for each, with little processor time.
    Slow,
    /// The file system is frozen, and 32 writes hang.
    Frozen,
}

const ALL: [Beside; 5] = [
    Beside::Alone,
    Beside::Flushing,
    Beside::Busy,
    Beside::Slow,
    Beside::Frozen,
];

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Flushing => "flushing",
            Self::Busy => "busy",
            Self::Slow => "slow",
            Self::Frozen => "frozen",
        }
    }

    fn job(self) -> Job {
        Job {
            writes: true,
            in_order: false,
            depth: match self {
                Self::Flushing => 1,
                Self::Slow => SLOW_DEPTH,
                Self::Alone | Self::Busy | Self::Frozen => 32,
            },
            block: 4 * KIB,
        }
    }

    /// Returns the number of the daemon's image for this load.
    fn image(self) -> usize {
        match self {
            Self::Alone | Self::Flushing | Self::Busy => 0,
            Self::Frozen => 1,
            Self::Slow => 2,
        }
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    server: &'static str,
    engine: &'static str,
    /// The load of the image.
    beside: &'static str,
    queue_depth: usize,
    round: usize,
    /// The rate of the disk in memory; zero if it was not served.
    iops: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    /// The rate of the image.
    image_iops: f64,
    verified: bool,
    profile: &'static str,
}

/// The file systems of the images, and their limits.
struct Media<'a> {
    directory: &'a Path,
    /// A file system that can be frozen.
    system: Option<&'a Freezable>,
    /// A control group whose writes to that file system wait.
    slow: Option<&'a ControlGroup>,
}

impl Media<'_> {
    /// Returns the directory of each image, and whether it bypasses the page cache, in the order of
    /// [`Beside::image`].
    fn places(&self) -> Vec<(&Path, bool)> {
        let system = self.system.map(Freezable::path);
        let slow = self.slow.and(system);
        let all = [
            Some((self.directory, false)),
            system.map(|path| (path, false)),
            slow.map(|path| (path, true)),
        ];
        all.into_iter().flatten().collect()
    }
}

/// A daemon, and the blocks of its images.
struct Daemon {
    engine: Engine,
    server: Server,
    blocks: Vec<Blocks>,
}

impl Daemon {
    fn start(engine: Engine, blockd: &Path, media: &Media<'_>, cores: Option<Cores>) -> anyhow::Result<Self> {
        let (mut images, mut blocks): (Vec<Image>, Vec<Blocks>) = (Vec::new(), Vec::new());
        for (number, (place, is_direct)) in media.places().into_iter().enumerate() {
            let path = place.join(format!("{}-{}-{number}", engine.program.name(), engine.name));
            // Allocates the blocks of the image here, so that writes need no allocation.
            let of_image = Blocks::new(IMAGE / 4, 4 * KIB);
            let written = fs::write(&path, of_image.image());
            let written = written.and_then(|()| fs::File::open(&path)?.sync_all());
            written.with_context(|| format!("cannot write {}", path.display()))?;
            images.push(Image { path, is_direct });
            blocks.push(of_image);
        }
        let server = Server::start_beside_images(media.slow, engine, blockd, &images, cores)?;
        Client::connect(&server.socket(), Contents::PATTERN, Waits::ForEvents)?.fill()?;
        Ok(Self {
            engine,
            server,
            blocks,
        })
    }
}

/// Returns the description of a run, as in "blockd auto, busy".
fn describe(engine: Engine, beside: Beside) -> String {
    format!("{} {}, {}", engine.program.name(), engine.name, beside.name())
}

/// Measures all daemons in turns, with an image of each in `directory`: the runs whose descriptions have all
/// words of `only`, and each of those daemons alone.
pub(crate) fn measure(
    directory: &Path,
    blockd: &Path,
    cores: Option<Cores>,
    (rounds, time): (usize, Duration),
    only: &[String],
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let is_wanted = |engine, beside| has_all(&describe(engine, beside), only);
    let place = tempfile::tempdir_in(directory)
        .with_context(|| format!("cannot make images in {}", directory.display()))?;
    let frozen = Freezable::mount(place.path());
    if let Err(error) = &frozen {
        println!("skipped: no file system that can be frozen: {error:#}");
    }
    let system = frozen.as_ref().ok();
    let slow = system.and_then(slow_writes);
    let media = Media {
        directory: place.path(),
        system,
        slow: slow.as_ref(),
    };
    let images = media.places().len();
    let all: Vec<Beside> = ALL.into_iter().filter(|beside| beside.image() < images).collect();
    let engines = ENGINES.into_iter().filter(Engine::is_available);
    let engines = engines.filter(|engine| all.iter().any(|beside| is_wanted(*engine, *beside)));
    let daemons = engines.map(|engine| Daemon::start(engine, blockd, &media, cores));
    let mut daemons = daemons.collect::<anyhow::Result<Vec<Daemon>>>()?;
    ensure!(
        !daemons.is_empty(),
        "no run has all of {only:?} in its description"
    );
    let runs_of = |engine| {
        let all = all.iter().copied();
        all.filter(move |beside| *beside == Beside::Alone || is_wanted(engine, *beside))
    };
    let in_a_round: usize = daemons.iter().map(|daemon| runs_of(daemon.engine).count()).sum();
    let progress = ProgressBar::new((rounds * in_a_round) as u64);
    let mut rows = Vec::new();
    for round in 0..rounds {
        for daemon in &mut daemons {
            for beside in runs_of(daemon.engine) {
                interrupt.check()?;
                let row = one_run(daemon, beside, system, time);
                let row = row.with_context(|| describe(daemon.engine, beside))?;
                rows.push(Row { round, ..row });
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}

/// Returns a control group whose writes to the file system wait. If that fails, it prints the reason.
fn slow_writes(system: &Freezable) -> Option<ControlGroup> {
    let limit = system.device().map(|device| Limit::Writes {
        device,
        per_second: SLOW_WRITES,
    });
    let group = limit.and_then(ControlGroup::make);
    if let Err(why) = &group {
        println!("skipped: no device whose writes wait: {why:#}");
    }
    group.ok()
}

fn one_run(
    daemon: &mut Daemon,
    beside: Beside,
    system: Option<&Freezable>,
    time: Duration,
) -> anyhow::Result<Row> {
    let job = beside.job();
    let image = beside.image();
    let (server, blocks) = (&daemon.server, &mut daemon.blocks[image]);
    let connect = || Client::connect_for_blocks(&server.beside(image), Waits::ForEvents, job);
    // Connects before anything hangs.
    let mut neighbour = Client::connect(&server.socket(), Contents::PATTERN, Waits::Spinning)?;
    let row = match (beside, system) {
        (Beside::Flushing | Beside::Busy | Beside::Slow, _) => {
            let (client, is_over) = (connect()?, AtomicBool::new(false));
            let is_over = &is_over;
            std::thread::scope(|scope| {
                let working = scope.spawn(move || keep_busy(client, blocks, job, is_over));
                let row = run_neighbour(&mut neighbour, time);
                is_over.store(true, Ordering::Relaxed);
                let image_iops = working.join().map_err(|_| anyhow!("a client has panicked"))??;
                anyhow::Ok(Row { image_iops, ..row? })
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
    ensure!(
        beside != Beside::Slow || is_slow(row.image_iops),
        "the slow image executes {:.0} writes a second, where its control group allows {SLOW_WRITES}",
        row.image_iops
    );
    Ok(Row {
        server: daemon.engine.program.name(),
        engine: daemon.engine.name,
        beside: beside.name(),
        ..row
    })
}

/// Returns `true` if the limit of the control group was effective, so that each request waited. The kernel
/// counts in periods of 0.1 s.
fn is_slow(iops: f64) -> bool {
    iops > 0.0 && iops < 1.5 * f64::from(SLOW_WRITES)
}

/// Keeps the image busy until `is_over` is set. Returns its requests per second.
fn keep_busy(mut client: Client, blocks: &mut Blocks, job: Job, is_over: &AtomicBool) -> anyhow::Result<f64> {
    const PART: Duration = Duration::from_millis(100);
    let is_over = || is_over.load(Ordering::Relaxed);
    let began = Instant::now();
    let mut requests = 0;
    if job.depth == 1 {
        requests = client.write_and_flush(blocks, job, is_over)?;
    }
    while !is_over() {
        requests += client.run_blocks(blocks, job, PART)?.requests;
    }
    Ok(requests as f64 / began.elapsed().as_secs_f64())
}

/// Reads from the disk in memory. If the disk is not served at all, its rate is zero.
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

/// Prints the medians, and the ratios to the disk alone in the same round.
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

/// Returns the ratios to the disk alone, and whether they reach the goals.
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

    /// A medium that the limit does not reach is not counted as slow.
    #[test]
    fn p17_a_slow_image_executes_no_more_writes_than_its_limit() {
        let limit = f64::from(SLOW_WRITES);
        assert!(is_slow(limit) && is_slow(limit / 2.0));
        assert!(!is_slow(0.0) && !is_slow(2.0 * limit));
        assert_eq!(SLOW_DEPTH as f64 / limit, 0.01, "seconds for each write");
    }

    /// The order of the images is that of their numbers, for each number of images.
    #[test]
    fn p17_images_lie_where_they_are_looked_for() {
        let directory = Path::new("/directory");
        let media = Media {
            directory,
            system: None,
            slow: None,
        };
        assert_eq!(media.places(), [(directory, false)]);
        assert_eq!(ALL.map(Beside::image), [0, 0, 0, 2, 1]);
    }
}
