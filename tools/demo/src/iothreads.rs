//! Two I/O threads with two clients, compared with one I/O thread with two clients (P16).
//!
//! In the first kind of run each client has its own disk in memory; with two I/O threads each disk has its
//! own thread. In the second kind one client has two queues of one disk, used by two threads of the client;
//! with two I/O threads each queue has its own. Both daemons are measured in turns. Two threads and two
//! clients need four cores: with fewer, the ratio is no evidence about threads, and the report says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use aio_tools::build;
use aio_tools::interrupt::Interrupt;
use aio_tools::report::{median, range};
use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::client::{Client, Contents, Measured, Waits};
use crate::measure::settle;
use crate::server::{BLOCKD, DISK, Kind, Polling, Program, Server, polling_options};

/// The clients, each with a disk.
const CLIENTS: usize = 2;
/// The numbers of I/O threads to compare.
const THREADS: [usize; 2] = [1, CLIENTS];
/// The cores that the larger number of threads and their clients need.
const NEEDED: usize = 2 * CLIENTS;
/// The least permitted ratio of requests per second.
const GOAL: f64 = 1.8;
const DEPTHS: [usize; 2] = [1, 32];
/// The ways in which the daemon and its clients wait.
const WAITS: [(Polling, Waits); 3] = [
    (Polling::Adaptive, Waits::Spinning),
    (Polling::Adaptive, Waits::ForEvents),
    (Polling::Off, Waits::ForEvents),
];

/// The part of the daemon that the clients share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// The clients share nothing: each has a disk.
    Disks,
    /// The clients share a disk: each uses one of its queues.
    Queues,
}

impl Sharing {
    fn name(self) -> &'static str {
        match self {
            Self::Disks => "disks",
            Self::Queues => "queues",
        }
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    server: &'static str,
    /// The word for the share of each client: a disk, or a queue of one disk.
    each: &'static str,
    iothreads: usize,
    clients: usize,
    polling: &'static str,
    client: &'static str,
    queue_depth: usize,
    round: usize,
    /// The rate of all clients together.
    iops: f64,
    p50_us: f64,
    p99_us: f64,
    server_cpu_pct: f64,
    /// The processor time of the daemon for a request.
    server_us_per_request: f64,
    /// The cores that the daemon and the clients share.
    cores: usize,
    /// `true` if there is a core for each thread and client.
    has_cores: bool,
    verified: bool,
    profile: &'static str,
}

/// The load at which both numbers of threads are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Work {
    sharing: Sharing,
    polling: Polling,
    waits: Waits,
    depth: usize,
}

impl Work {
    fn all() -> Vec<Self> {
        let work = |sharing, depth| {
            WAITS.map(|(polling, waits)| Self {
                sharing,
                polling,
                waits,
                depth,
            })
        };
        let of_disks = DEPTHS.into_iter().flat_map(|depth| work(Sharing::Disks, depth));
        of_disks.chain(work(Sharing::Queues, DEPTHS[1])).collect()
    }

    fn is_of(self, row: &Row) -> bool {
        let of_row = (row.each, row.polling, row.client, row.queue_depth);
        of_row
            == (
                self.sharing.name(),
                self.polling.name(),
                self.waits.name(),
                self.depth,
            )
    }
}

/// Measures both daemons in turns.
pub(crate) fn measure(
    blockd: &Path,
    (rounds, time): (usize, Duration),
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let mut servers = Vec::new();
    for sharing in [Sharing::Disks, Sharing::Queues] {
        for polling in [Polling::Off, Polling::Adaptive] {
            for threads in THREADS {
                let server = start(blockd, threads, polling, sharing)?;
                for socket in server.1.iter() {
                    Client::connect(socket, Contents::PATTERN, Waits::ForEvents)?.fill()?;
                }
                servers.push((threads, sharing, server));
            }
        }
    }
    let all = Work::all();
    let progress = ProgressBar::new((rounds * all.len() * THREADS.len()) as u64);
    let mut rows = Vec::new();
    for round in 0..rounds {
        for work in &all {
            for (threads, sharing, (server, sockets)) in &servers {
                if (server.kind().polling, *sharing) != (work.polling, work.sharing) {
                    continue;
                }
                interrupt.check()?;
                settle(|| servers.iter().map(|(_, _, (server, _))| server.cpu_time()).sum())?;
                let mut row = one_run(server, sockets, *work, time)?;
                (row.iothreads, row.round) = (*threads, round);
                rows.push(row);
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}

/// Starts a daemon with `threads` I/O threads, on any core. Returns the sockets of its disks.
fn start(
    blockd: &Path,
    threads: usize,
    polling: Polling,
    sharing: Sharing,
) -> anyhow::Result<(Server, Vec<PathBuf>)> {
    let directory = tempfile::tempdir().context("cannot make a directory for sockets")?;
    let mut command = Command::new(blockd);
    polling_options(&mut command, polling);
    command.args(["--iothreads", &threads.to_string()]);
    let mut sockets = Vec::new();
    let threads_of_disks = match sharing {
        Sharing::Disks => (0..CLIENTS).map(|disk| (disk % threads).to_string()).collect(),
        Sharing::Queues => vec!["all".to_owned()],
    };
    for (disk, thread) in threads_of_disks.into_iter().enumerate() {
        let socket = directory.path().join(format!("{disk}.sock"));
        command.arg("--export").arg(format!(
            "ram={DISK},socket={},iothread={thread}",
            socket.display()
        ));
        sockets.push(socket);
    }
    let kind = Kind {
        program: Program::Blockd,
        polling,
    };
    Ok((Server::start_by(&mut command, kind, directory, None)?, sockets))
}

/// Runs all clients at the same time.
fn one_run(server: &Server, sockets: &[PathBuf], work: Work, time: Duration) -> anyhow::Result<Row> {
    let start = Barrier::new(CLIENTS + 1);
    let connected = connect(sockets, work)?;
    let (measured, ran, elapsed) = std::thread::scope(|scope| {
        let start = &start;
        let clients: Vec<_> = connected
            .into_iter()
            .map(|client| scope.spawn(move || one_client(client, work, time, start)))
            .collect();
        start.wait();
        let (began, before) = (Instant::now(), server.cpu_time());
        let measured: Vec<anyhow::Result<Measured>> = clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a client has panicked")))
            })
            .collect();
        let ran = before.and_then(|before| Ok(server.cpu_time()? - before));
        (measured, ran, began.elapsed())
    });
    let measured = measured.into_iter().collect::<anyhow::Result<Vec<Measured>>>()?;
    let ran = ran?;
    let mut latency: Histogram<u64> = Histogram::new(3)?;
    for client in &measured {
        latency.add(&client.latency)?;
    }
    let requests: u64 = measured.iter().map(|client| client.requests).sum();
    let rate = |client: &Measured| client.requests as f64 / client.elapsed.as_secs_f64();
    let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Row {
        server: BLOCKD,
        iothreads: 0,
        each: work.sharing.name(),
        clients: CLIENTS,
        polling: work.polling.name(),
        client: work.waits.name(),
        queue_depth: work.depth,
        round: 0,
        iops: measured.iter().map(rate).sum(),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        server_cpu_pct: 100.0 * ran.as_secs_f64() / elapsed.as_secs_f64(),
        server_us_per_request: ran.as_secs_f64() * 1e6 / requests.max(1) as f64,
        cores,
        has_cores: cores >= NEEDED,
        // A run with a wrong byte ends with an error instead.
        verified: true,
        profile: build::PROFILE,
    })
}

/// Connects the clients: each to its disk, or one with two queues to the only disk.
fn connect(sockets: &[PathBuf], work: Work) -> anyhow::Result<Vec<Client>> {
    let connect = |socket: &PathBuf| Client::connect(socket, Contents::PATTERN, work.waits);
    match work.sharing {
        Sharing::Disks => sockets.iter().map(connect).collect(),
        Sharing::Queues => Client::connect_queues(&sockets[0], Contents::PATTERN, work.waits, CLIENTS),
    }
}

fn one_client(mut client: Client, work: Work, time: Duration, start: &Barrier) -> anyhow::Result<Measured> {
    start.wait();
    client.run(work.depth, Duration::ZERO, time / 5)?;
    client.run(work.depth, Duration::ZERO, time)
}

/// Runs two clients against a daemon with two threads for `time`, and returns an estimate of the number of
/// requests.
pub(crate) fn drive(blockd: &Path, time: Duration) -> anyhow::Result<u64> {
    let (server, sockets) = start(blockd, CLIENTS, Polling::Off, Sharing::Disks)?;
    for socket in &sockets {
        Client::connect(socket, Contents::PATTERN, Waits::ForEvents)?.fill()?;
    }
    let work = Work {
        sharing: Sharing::Disks,
        polling: Polling::Off,
        waits: Waits::ForEvents,
        depth: DEPTHS[1],
    };
    let row = one_run(&server, &sockets, work, time)?;
    Ok((row.iops * time.as_secs_f64()) as u64)
}

/// Prints both numbers of threads, the ratio in the same round, and whether this machine has enough cores for
/// a verdict.
pub(crate) fn print(rows: &[Row]) {
    for work in Work::all() {
        println!(
            "\n{}, {} clients, depth {}, polling {}",
            match work.sharing {
                Sharing::Disks => "two disks",
                Sharing::Queues => "two queues of one disk",
            },
            work.waits.name(),
            work.depth,
            work.polling.name()
        );
        for threads in THREADS {
            let of: Vec<&Row> = rows
                .iter()
                .filter(|row| row.iothreads == threads && work.is_of(row))
                .collect();
            let all =
                |figure: fn(&Row) -> f64| median(&of.iter().map(|row| figure(row)).collect::<Vec<f64>>());
            println!(
                "  {threads} I/O thread{} {:>9.0} requests/s, p50 {:>7.1} us, p99 {:>8.1} us, CPU {:>3.0} %, {:>5.2} us of CPU a request",
                if threads == 1 { " " } else { "s" },
                all(|row| row.iops),
                all(|row| row.p50_us),
                all(|row| row.p99_us),
                all(|row| row.server_cpu_pct),
                all(|row| row.server_us_per_request),
            );
        }
        println!("  {}", verdict(rows, work));
    }
    if let Some(row) = rows.iter().find(|row| !row.has_cores) {
        println!(
            "\nThis machine has {} cores, and two I/O threads with two clients need {NEEDED}: threads and clients take cores from each other, \
             so their requests per second do not say whether P16 (>= {GOAL}) is reached.",
            row.cores
        );
    }
}

fn verdict(rows: &[Row], work: Work) -> String {
    let has_cores = rows.iter().all(|row| row.has_cores);
    let (of, figure): (_, fn(&Row) -> f64) = match has_cores {
        true => ("requests", |row| row.iops),
        // The cost of a request does not depend on the number of cores.
        false => ("CPU of a request", |row| row.server_us_per_request),
    };
    let ratios = ratios(rows, work, figure);
    if ratios.is_empty() {
        return "not measured".to_owned();
    }
    let (low, high) = range(&ratios);
    let ratio = median(&ratios);
    let judged = match has_cores {
        false => "too few cores for a verdict",
        true if ratio >= GOAL => "goal reached",
        true => "goal missed",
    };
    format!("{of}, two threads over one: {ratio:.2} [{low:.2} - {high:.2}], {judged}")
}

/// Returns the ratios of a figure with two threads to that with one, one for each round.
fn ratios(rows: &[Row], work: Work, figure: fn(&Row) -> f64) -> Vec<f64> {
    let of = |threads: usize| {
        rows.iter()
            .filter(move |row| row.iothreads == threads && work.is_of(row))
    };
    let ratio = |two: &Row| {
        let one = of(THREADS[0]).find(|one| one.round == two.round)?;
        Some(figure(two) / figure(one))
    };
    of(THREADS[1]).filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(iothreads: usize, round: usize, iops: f64, cores: usize) -> Row {
        Row {
            server: BLOCKD,
            each: "disks",
            iothreads,
            clients: 2,
            polling: "off",
            client: "event",
            queue_depth: 1,
            round,
            iops,
            p50_us: 1.0,
            p99_us: 1.0,
            server_cpu_pct: 1.0,
            server_us_per_request: 1.0,
            cores,
            has_cores: cores >= NEEDED,
            verified: true,
            profile: "release",
        }
    }

    #[test]
    fn two_threads_are_judged_only_where_there_are_cores() {
        let work = Work {
            sharing: Sharing::Disks,
            polling: Polling::Off,
            waits: Waits::ForEvents,
            depth: 1,
        };
        let rows = |cores, of_two| {
            [
                row(1, 0, 100.0, cores),
                row(2, 0, of_two, cores),
                row(2, 1, 9.0, cores),
            ]
        };
        let of_requests = ratios(&rows(4, 190.0), work, |row| row.iops);
        assert_eq!(of_requests, [1.9], "a round without both is left out");
        assert!(verdict(&rows(4, 190.0), work).contains("1.90 [1.90 - 1.90], goal reached"));
        assert!(verdict(&rows(4, 110.0), work).contains("missed"));
        let without_cores = verdict(&rows(2, 190.0), work);
        assert!(without_cores.contains("too few cores") && !without_cores.contains("1.9"));
        assert_eq!(verdict(&[], work), "not measured");
    }
}
