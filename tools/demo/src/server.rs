//! The measured daemons. Each is started with its sockets in a directory of its own, and stopped when
//! dropped.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::time::{clock_getcpuclockid, clock_gettime};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::client::Contents;
use crate::control_group::ControlGroup;
use crate::idle::{Idle, QUEUES};
use aio_tools::cores::{self, Cores};
use aio_tools::shell;

/// The longest time that blockd's policy may poll. The policy finds the time that pays within it.
const POLL_MAX: Duration = Duration::from_micros(100);
/// The default of an I/O thread of the peer.
const PEER_POLL_MAX: Duration = Duration::from_nanos(32_768);
/// The engine with which the peer reads its file. Of its three engines this one serves a file in memory
/// fastest: at depth 32, 355,000 requests per second, against 296,000 with `io_uring` and 272,000 with
/// `native`; a null disk 570,000.
pub(crate) const PEER_AIO: &str = "threads";
/// The longest polling time of a daemon that always polls. It is longer than any gap between two requests, so
/// that the daemon never sleeps while it is measured, and short, because the next run waits until it sleeps.
const ALWAYS_MAX: Duration = Duration::from_millis(100);
/// The bytes of the disk to read.
pub(crate) const DISK: u64 = 1 << 20;
/// The time after which a daemon that is not ready counts as failed.
const START: Duration = Duration::from_secs(20);
/// The names of the servers.
pub(crate) const BLOCKD: &str = "blockd";
pub(crate) const PEER: &str = "qemu-storage-daemon";
pub(crate) const PEER_NULL: &str = "qemu-storage-daemon (null)";
/// blockd's queues on a hand-written loop. With polling off it sleeps in `epoll_wait`, otherwise it spins.
pub(crate) const FLOOR: &str = "floor";

/// A daemon and its way of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) program: Program,
    pub(crate) polling: Polling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// blockd, with a disk in its memory.
    Blockd,
    /// The daemon to compare with. It has no disk in memory of its own, so it serves a file that is in
    /// memory.
    Peer,
    /// The daemon to compare with, and a disk that discards all writes: the least that it can do for a
    /// request.
    PeerNull,
    /// The disk and the queues of blockd, on an event loop of a few lines. The difference is the cost of the
    /// loop itself.
    Floor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polling {
    Off,
    Adaptive,
    /// The daemon polls for as long as it may, as a comparison for adaptive polling.
    Always,
    /// The daemon polls by the policy of this name.
    Policy(&'static str),
}

/// A daemon, and its way of reading and writing an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Engine {
    pub(crate) program: Program,
    /// The name in the daemon's option.
    pub(crate) name: &'static str,
}

impl Engine {
    /// Returns `true` if its daemon exists. blockd has been built.
    pub(crate) fn is_available(&self) -> bool {
        self.program == Program::Blockd || peer_is_installed()
    }
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blockd => BLOCKD,
            Self::Peer => PEER,
            Self::PeerNull => PEER_NULL,
            Self::Floor => FLOOR,
        }
    }
}

impl Polling {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Adaptive => "adaptive",
            Self::Always => "always",
            Self::Policy(name) => name,
        }
    }
}

/// Returns `true` if the daemon to compare with is installed.
pub(crate) fn peer_is_installed() -> bool {
    shell::is_installed(PEER)
}

/// An image that a daemon serves beside the measured disk.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    /// `true` if it bypasses the page cache.
    pub(crate) is_direct: bool,
}

/// A running daemon with idle queues connected to it.
pub(crate) struct Server {
    kind: Kind,
    child: Child,
    directory: tempfile::TempDir,
    idle: Vec<Idle>,
    /// The disk of a daemon that serves a file.
    _disk: Option<File>,
}

impl Server {
    /// Starts a daemon on its core and connects `idle` queues. None of them is ever used.
    pub(crate) fn start(kind: Kind, blockd: &Path, idle: usize, at: Option<Cores>) -> anyhow::Result<Self> {
        Self::start_within(None, kind, blockd, idle, at)
    }

    /// Like [`start`](Self::start), in the control group from its first instruction on.
    pub(crate) fn start_within(
        group: Option<&ControlGroup>,
        kind: Kind,
        blockd: &Path,
        idle: usize,
        at: Option<Cores>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for sockets")?;
        let exports = idle.div_ceil(QUEUES);
        let mut disk = None;
        let mut command = match kind.program {
            Program::Blockd => command_of_blockd(blockd, kind.polling, directory.path(), exports),
            Program::Peer => {
                let file = disk.insert(file_in_memory()?);
                let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
                let node = format!("driver=file,node-name=disk,aio={PEER_AIO},filename={path}");
                command_of_peer(&node, kind.polling, directory.path(), exports)
            }
            Program::PeerNull => {
                let node = format!("driver=null-co,node-name=disk,size={DISK},read-zeroes=on");
                command_of_peer(&node, kind.polling, directory.path(), exports)
            }
            Program::Floor => command_of_floor(blockd, kind.polling, directory.path()),
        };
        if let Some(group) = group {
            command = group.enter_with(&command);
        }
        let mut server = Self::start_by(&mut command, kind, directory, at)?;
        server._disk = disk;
        for export in 0..exports {
            let socket = idle_socket(server.directory.path(), export);
            server.idle.push(Idle::connect(&socket)?);
        }
        Ok(server)
    }

    /// Starts a daemon that serves this image, on its core.
    pub(crate) fn start_with_image(
        engine: Engine,
        blockd: &Path,
        image: &Path,
        at: Option<Cores>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for sockets")?;
        let (program, polling) = (engine.program, Polling::Off);
        let mut command = if program == Program::Blockd {
            let socket = busy_socket(directory.path());
            let mut command = Command::new(blockd);
            command.args(["--engine", engine.name, "--export"]);
            command.arg(format!(
                "path={},socket={},lock=off",
                image.display(),
                socket.display()
            ));
            command
        } else {
            let (aio, image) = (engine.name, image.display());
            let node = format!("driver=file,node-name=disk,aio={aio},locking=off,filename={image}");
            command_of_peer(&node, polling, directory.path(), 0)
        };
        Self::start_by(&mut command, Kind { program, polling }, directory, at)
    }

    /// Starts a daemon that serves a disk in memory at its [socket](Self::socket), and these images at the
    /// sockets of [`beside`](Self::beside). It runs on its core, in the control group from its first
    /// instruction on.
    pub(crate) fn start_beside_images(
        group: Option<&ControlGroup>,
        engine: Engine,
        blockd: &Path,
        images: &[Image],
        at: Option<Cores>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for sockets")?;
        let (program, polling) = (engine.program, Polling::Off);
        let mut disk = None;
        let mut command = if program == Program::Blockd {
            let mut command = command_of_blockd(blockd, polling, directory.path(), 0);
            command.args(["--engine", engine.name]);
            for (place, image) in images.iter().enumerate() {
                let socket = beside_socket(directory.path(), place);
                let cache = if image.is_direct { "none" } else { "writeback" };
                command.arg("--export").arg(format!(
                    "path={},socket={},cache={cache}",
                    image.path.display(),
                    socket.display()
                ));
            }
            command
        } else {
            let file = disk.insert(file_in_memory()?);
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            let mut command = Command::new(PEER);
            command.args(["--object", "iothread,id=loop,poll-max-ns=0"]);
            for (place, image) in images.iter().enumerate() {
                let socket = beside_socket(directory.path(), place);
                let node = format!(
                    "driver=file,node-name=image{place},aio={},filename={},cache.direct={}",
                    engine.name,
                    image.path.display(),
                    if image.is_direct { "on" } else { "off" }
                );
                export_of_peer(&mut command, &node, &format!("image{place}"), &socket);
            }
            let node = format!("driver=file,node-name=ram,aio={PEER_AIO},filename={path}");
            // The last export. When its socket exists, all exports are ready.
            export_of_peer(&mut command, &node, "ram", &busy_socket(directory.path()));
            command
        };
        if let Some(group) = group {
            command = group.enter_with(&command);
        }
        let mut server = Self::start_by(&mut command, Kind { program, polling }, directory, at)?;
        server._disk = disk;
        Ok(server)
    }

    /// Returns the socket of an image beside the disk in memory.
    pub(crate) fn beside(&self, place: usize) -> PathBuf {
        beside_socket(self.directory.path(), place)
    }

    pub(crate) fn start_by(
        command: &mut Command,
        kind: Kind,
        directory: tempfile::TempDir,
        at: Option<Cores>,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = cores::spawn(command, at);
        let child = child.with_context(|| format!("cannot start {}", kind.program.name()))?;
        let mut server = Self {
            kind,
            child,
            directory,
            idle: Vec::new(),
            _disk: None,
        };
        server.await_ready()?;
        Ok(server)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the socket of the measured disk.
    pub(crate) fn socket(&self) -> PathBuf {
        busy_socket(self.directory.path())
    }

    /// Returns the contents of the disk after a client has filled it.
    pub(crate) fn contents(&self) -> Contents {
        match self.kind.program {
            Program::Blockd | Program::Peer | Program::Floor => Contents::PATTERN,
            Program::PeerNull => Contents::ZEROES,
        }
    }

    /// Returns the processor time of the daemon's threads so far.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        cpu_time_of(self.child.id())
    }

    fn await_ready(&mut self) -> anyhow::Result<()> {
        if matches!(self.kind.program, Program::Blockd | Program::Floor) {
            let out = self.child.stdout.take().context("standard output is piped")?;
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line)?;
            if line.trim() != "ready" {
                bail!(
                    "{} did not start: {:?}",
                    self.kind.program.name(),
                    self.child.wait()?
                );
            }
            return Ok(());
        }
        // The daemon makes its exports one after the other, the busy one last, and prints no message.
        let (socket, deadline) = (self.socket(), Instant::now() + START);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} did not start: {status}", self.kind.program.name());
            }
            if UnixStream::connect(&socket).is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after {START:?}", self.kind.program.name());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.idle.clear();
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // The process may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // If the process cannot be killed, nothing more can be done.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Returns the processor time of the threads of a process so far, including those that have ended.
pub(crate) fn cpu_time_of(process: u32) -> anyhow::Result<Duration> {
    let clock = clock_getcpuclockid(nix::unistd::Pid::from_raw(process.cast_signed()));
    let ran = clock.and_then(clock_gettime);
    let ran = ran.with_context(|| format!("cannot read the processor time of process {process}"))?;
    Ok(ran.into())
}

fn busy_socket(directory: &Path) -> PathBuf {
    directory.join("busy.sock")
}

fn beside_socket(directory: &Path, place: usize) -> PathBuf {
    directory.join(format!("beside-{place}.sock"))
}

fn idle_socket(directory: &Path, export: usize) -> PathBuf {
    directory.join(format!("idle-{export}.sock"))
}

fn command_of_blockd(program: &Path, polling: Polling, directory: &Path, idle: usize) -> Command {
    let mut command = Command::new(program);
    polling_options(&mut command, polling);
    for export in 0..idle {
        let socket = idle_socket(directory, export);
        command
            .arg("--export")
            .arg(format!("null=1M,socket={},queues={QUEUES}", socket.display()));
    }
    let socket = busy_socket(directory);
    command
        .arg("--export")
        .arg(format!("ram={DISK},socket={}", socket.display()));
    command
}

/// Adds blockd's options for polling.
pub(crate) fn polling_options(command: &mut Command, polling: Polling) {
    let (policy, max) = match polling {
        Polling::Off => (None, Duration::ZERO),
        Polling::Adaptive => (None, POLL_MAX),
        Polling::Always | Polling::Policy("always") => (Some("always"), ALWAYS_MAX),
        Polling::Policy(name) => (Some(name), POLL_MAX),
    };
    if let Some(policy) = policy {
        command.args(["--policy", policy]);
    }
    if polling == Polling::Always {
        command.arg("--poll-exclusive");
    }
    command.arg("--poll-max").arg(format!("{}ns", max.as_nanos()));
}

fn command_of_floor(blockd: &Path, polling: Polling, directory: &Path) -> Command {
    let mut command = Command::new(blockd.with_file_name("examples").join("floor"));
    command.arg(if polling == Polling::Off { "epoll" } else { "spin" });
    let socket = busy_socket(directory);
    command
        .arg("--export")
        .arg(format!("ram={DISK},socket={}", socket.display()));
    command
}

/// Creates a file of the size of the disk that belongs to no file system. It exists until the last descriptor
/// is closed.
fn file_in_memory() -> anyhow::Result<File> {
    let file: File = rustix::fs::memfd_create("disk", MemfdFlags::CLOEXEC)?.into();
    file.set_len(DISK)?;
    Ok(file)
}

/// Adds a disk with one queue to the peer.
fn export_of_peer(command: &mut Command, node: &str, name: &str, socket: &Path) {
    command.arg("--blockdev").arg(node);
    command.arg("--export").arg(format!(
        "type=vhost-user-blk,id={name}-export,node-name={name},writable=on,addr.type=unix,addr.path={},num-queues=1,iothread=loop",
        socket.display()
    ));
}

fn command_of_peer(disk: &str, polling: Polling, directory: &Path, idle: usize) -> Command {
    let poll_max = match polling {
        Polling::Off => 0,
        Polling::Adaptive | Polling::Always | Polling::Policy(_) => PEER_POLL_MAX.as_nanos(),
    };
    let mut command = Command::new(PEER);
    command
        .arg("--object")
        .arg(format!("iothread,id=loop,poll-max-ns={poll_max}"));
    command.arg("--blockdev").arg(disk);
    command.arg("--blockdev").arg(format!(
        "driver=null-co,node-name=idle,size={DISK},read-zeroes=on"
    ));
    let mut export = |id: &str, node: &str, socket: &Path, queues: usize| {
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id={id},node-name={node},writable=on,addr.type=unix,addr.path={},num-queues={queues},iothread=loop",
            socket.display()
        ));
    };
    for number in 0..idle {
        export(
            &format!("idle{number}"),
            "idle",
            &idle_socket(directory, number),
            QUEUES,
        );
    }
    export("busy", "disk", &busy_socket(directory), 1);
    command
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn time_of_a_thread_that_has_ended_counts() {
        let spin = || {
            let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
            let ran = || Duration::from(clock_gettime(clock).unwrap());
            while ran() < Duration::from_millis(20) {}
            ran()
        };
        let before = cpu_time_of(std::process::id()).unwrap();
        let of_thread = std::thread::spawn(spin).join().unwrap();
        let ran = cpu_time_of(std::process::id()).unwrap() - before;
        assert!(
            ran >= of_thread,
            "{ran:?} of the process, {of_thread:?} of its thread"
        );
    }

    #[test]
    fn time_of_a_process_that_is_not_there_is_an_error_that_names_it() {
        /// Twice the greatest process number of a kernel.
        const UNUSED: u32 = 1 << 23;
        let said = format!("{:#}", cpu_time_of(UNUSED).unwrap_err());
        assert!(said.contains(&UNUSED.to_string()), "{said}");
    }
}
