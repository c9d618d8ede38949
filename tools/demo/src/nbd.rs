//! NBD over a Unix socket: blockd's disk in memory, beside qemu-nbd and qemu-storage-daemon (P19).
//!
//! All serve 16 MiB to the same client. The peers have no disk in memory of their own, so they serve a file
//! that is in memory. A disk that discards all writes shows the least that one of them can do for a request.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aio_tools::cores::{self, Cores};
use aio_tools::interrupt::Interrupt;
use aio_tools::report::{median, range};
use aio_tools::{build, shell};
use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::nbd_client::{Job, NbdClient};
use crate::server::{BLOCKD, PEER, PEER_AIO};

const SIZE: u64 = 16 << 20;
const EXPORT: &str = "disk";
const QEMU_NBD: &str = "qemu-nbd";
/// The least permitted ratio of requests per second.
const GOAL: f64 = 1.2;
/// The time after which a server that is not ready counts as failed.
const START: Duration = Duration::from_secs(20);

const JOBS: [Job; 4] = [job(false, 1), job(false, 64), job(true, 1), job(true, 64)];

const fn job(writes: bool, depth: usize) -> Job {
    Job { writes, depth }
}

fn describe(job: Job) -> String {
    let what = if job.writes { "write" } else { "read" };
    format!("random {what} 4 KiB, depth {}", job.depth)
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    server: &'static str,
    protocol: &'static str,
    job: String,
    queue_depth: usize,
    round: usize,
    iops: f64,
    p50_us: f64,
    p99_us: f64,
    server_us_per_request: f64,
    verified: bool,
    profile: &'static str,
}

/// An NBD server. Dropping it ends it.
struct Server {
    name: &'static str,
    child: Child,
    socket: PathBuf,
    /// `true` if its disk keeps writes.
    keeps: bool,
    _disk: Option<File>,
    _directory: tempfile::TempDir,
}

/// The names of the servers, and for each the command that starts it with a socket and a file in memory.
type Make = fn(&Path, &str, &str) -> Command;
const SERVERS: [(&str, &str, bool, Make); 4] = [
    (BLOCKD, BLOCKD, true, |blockd, socket, _| {
        let mut command = Command::new(blockd);
        command.args(["--nbd", socket, "--export", &format!("ram={SIZE},name={EXPORT}")]);
        command
    }),
    (QEMU_NBD, QEMU_NBD, true, |_, socket, file| {
        let mut command = Command::new(QEMU_NBD);
        command.args(["--persistent", "--shared=0", "--format=raw", "--cache=writeback"]);
        command.args([&format!("--aio={PEER_AIO}"), "-x", EXPORT, "-k", socket, file]);
        command
    }),
    (PEER, PEER, true, |_, socket, file| {
        peer(
            &format!("driver=file,node-name=disk,aio={PEER_AIO},filename={file}"),
            socket,
        )
    }),
    ("qemu-storage-daemon (null)", PEER, false, |_, socket, _| {
        peer(
            &format!("driver=null-co,node-name=disk,size={SIZE},read-zeroes=off"),
            socket,
        )
    }),
];

fn peer(node: &str, socket: &str) -> Command {
    let mut command = Command::new(PEER);
    command.args(["--blockdev", node]);
    command.args(["--nbd-server", &format!("addr.type=unix,addr.path={socket}")]);
    command.args([
        "--export",
        &format!("type=nbd,id=e,node-name=disk,name={EXPORT},writable=on"),
    ]);
    command
}

impl Server {
    fn start(
        (name, program, keeps, make): (&'static str, &str, bool, Make),
        blockd: &Path,
        at: Option<Cores>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for a socket")?;
        let socket = directory.path().join("nbd.sock");
        let disk: File = rustix::fs::memfd_create("disk", MemfdFlags::CLOEXEC)?.into();
        disk.set_len(SIZE)?;
        let file = format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd());
        let mut command = make(blockd, &socket.display().to_string(), &file);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = cores::spawn(&mut command, at);
        let mut server = Self {
            name,
            child: child.with_context(|| format!("cannot start {program}"))?,
            socket,
            keeps,
            _disk: Some(disk),
            _directory: directory,
        };
        server.await_ready()?;
        Ok(server)
    }

    fn await_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} did not start: {status}", self.name);
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after {START:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Returns the processor time of its threads so far.
    fn cpu_time(&self) -> anyhow::Result<Duration> {
        crate::server::cpu_time_of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // The process may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Measures all installed servers in turns.
pub(crate) fn measure(
    blockd: &Path,
    cores: Option<Cores>,
    (rounds, time): (usize, Duration),
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Row>> {
    let mut servers = Vec::new();
    for of in SERVERS {
        if of.1 != BLOCKD && !shell::is_installed(of.1) {
            println!("skipped: {} is not installed", of.1);
            continue;
        }
        let server = Server::start(of, blockd, cores)?;
        NbdClient::connect(&server.socket, EXPORT)?.fill()?;
        servers.push(server);
    }
    let progress = ProgressBar::new((rounds * JOBS.len() * servers.len()) as u64);
    let mut rows = Vec::new();
    for round in 0..rounds {
        for job in JOBS {
            for server in &servers {
                interrupt.check()?;
                rows.push(
                    one_run(server, job, round, time)
                        .with_context(|| format!("{}, {}", server.name, describe(job)))?,
                );
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}

fn one_run(server: &Server, job: Job, round: usize, time: Duration) -> anyhow::Result<Row> {
    let mut client = NbdClient::connect(&server.socket, EXPORT)?;
    client.expect_contents(server.keeps);
    client.run(job, time / 5)?;
    let before = server.cpu_time()?;
    let measured = client.run(job, time)?;
    let ran = server.cpu_time()? - before;
    Ok(Row {
        server: server.name,
        protocol: "nbd",
        job: describe(job),
        queue_depth: job.depth,
        round,
        iops: measured.requests as f64 / measured.elapsed.as_secs_f64(),
        p50_us: measured.latency.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: measured.latency.value_at_quantile(0.99) as f64 / 1e3,
        server_us_per_request: ran.as_secs_f64() * 1e6 / measured.requests.max(1) as f64,
        // A run with a wrong byte ends with an error instead.
        verified: server.keeps,
        profile: build::PROFILE,
    })
}

/// Runs each job against blockd for `time`, and returns the number of requests.
pub(crate) fn drive(blockd: &Path, time: Duration) -> anyhow::Result<u64> {
    let server = Server::start(SERVERS[0], blockd, None)?;
    let mut client = NbdClient::connect(&server.socket, EXPORT)?;
    client.fill()?;
    let runs = JOBS.map(|job| client.run(job, time / JOBS.len() as u32));
    let mut requests = 0;
    for run in runs {
        requests += run?.requests;
    }
    Ok(requests)
}

/// Prints the medians, and the ratios of blockd to each other server in the same round.
pub(crate) fn print(rows: &[Row]) {
    for job in JOBS.map(describe) {
        println!("\n{job}");
        for (name, ..) in SERVERS {
            let runs: Vec<&Row> = rows
                .iter()
                .filter(|row| row.server == name && row.job == job)
                .collect();
            if runs.is_empty() {
                continue;
            }
            let all =
                |figure: fn(&Row) -> f64| median(&runs.iter().map(|row| figure(row)).collect::<Vec<f64>>());
            let mut line = format!(
                "  {name:<27} {:>9.0} requests/s, p50 {:>7.1} us, p99 {:>8.1} us, {:>5.2} us of CPU a request",
                all(|row| row.iops),
                all(|row| row.p50_us),
                all(|row| row.p99_us),
                all(|row| row.server_us_per_request),
            );
            let ratios = ratios(rows, &job, name);
            if name != BLOCKD && !ratios.is_empty() {
                let (low, high) = range(&ratios);
                line += &format!("; blockd over it {:.2} [{low:.2} - {high:.2}]", median(&ratios));
            }
            println!("{line}");
        }
    }
    println!("\nGoal: blockd at least {GOAL} of qemu-nbd and qemu-storage-daemon with a file in memory");
}

/// Returns the ratios of blockd's requests per second to those of another server, one for each round.
fn ratios(rows: &[Row], job: &str, other: &str) -> Vec<f64> {
    let of = |name: &str, round| {
        rows.iter()
            .find(|row| (row.server, row.round) == (name, round) && row.job == job)
    };
    let rounds = rows.iter().map(|row| row.round + 1).max().unwrap_or(0);
    let ratio = |round| Some(of(BLOCKD, round)?.iops / of(other, round)?.iops);
    (0..rounds).filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_compared_in_the_same_round() {
        let row = |server, round, iops| Row {
            server,
            protocol: "nbd",
            job: describe(JOBS[0]),
            queue_depth: 1,
            round,
            iops,
            p50_us: 1.0,
            p99_us: 1.0,
            server_us_per_request: 1.0,
            verified: true,
            profile: "release",
        };
        let rows = [row(BLOCKD, 0, 30.0), row(QEMU_NBD, 0, 20.0), row(BLOCKD, 1, 1.0)];
        assert_eq!(ratios(&rows, &describe(JOBS[0]), QEMU_NBD), [1.5]);
        assert!(ratios(&rows, &describe(JOBS[1]), QEMU_NBD).is_empty());
    }
}
