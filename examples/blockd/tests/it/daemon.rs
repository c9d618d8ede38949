//! A daemon as a process of its own, so that its descriptors, memory and CPU time can be counted.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, pattern};
use crate::process::wait_ready;

/// The time limit of every wait.
const LONG: Duration = Duration::from_secs(10);

/// A running daemon with one export. Dropping it kills the daemon.
pub(crate) struct Daemon {
    /// The number of sockets and eventfds at the start.
    eventfds_and_sockets: usize,
    child: Child,
    log: Arc<Log>,
    log_reader: Option<JoinHandle<()>>,
    pub(crate) directory: tempfile::TempDir,
    socket: PathBuf,
}

/// The present log.
#[derive(Default)]
struct Log {
    text: Mutex<String>,
    has_grown: Condvar,
}

/// The resources of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    pub(crate) descriptors: usize,
    /// A loop makes such a set once it has waited for long enough.
    epoll_sets: usize,
    /// The number of sockets and eventfds among the descriptors. These come with a client.
    eventfds_and_sockets: usize,
    pub(crate) mappings: usize,
    pub(crate) rss_kib: usize,
    /// The part of the memory that is not from files. The part from files varies, because the system keeps
    /// varying parts of the program in memory.
    pub(crate) anonymous_kib: usize,
}

impl Holds {
    /// Returns the number of descriptors that do not depend on the waits of the loop so far.
    pub(crate) fn fixed_descriptors(&self) -> usize {
        self.descriptors - self.epoll_sets
    }
}

impl Daemon {
    /// Starts a daemon that exports `disk` (`ram=1M`, `path=..`), with more arguments.
    pub(crate) fn start(disk: &str, args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), disk, args)
    }

    pub(crate) fn start_in(directory: tempfile::TempDir, disk: &str, args: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_blockd")), directory, disk, args)
    }

    /// Starts a daemon by a command that takes the daemon's arguments, and whose process becomes the
    /// daemon's.
    pub(crate) fn start_by(
        mut command: Command,
        directory: tempfile::TempDir,
        disk: &str,
        args: &[&str],
    ) -> Self {
        let socket = directory.path().join("a.sock");
        if !args.contains(&"--engine") {
            command.args(["--engine", &crate::engine()]);
        }
        if !args.contains(&"--iothreads") {
            command.args(["--iothreads", &crate::iothreads().to_string()]);
        }
        let mut child = command
            .arg("--export")
            .arg(format!(
                "{disk},socket={}{}",
                socket.display(),
                crate::last_thread()
            ))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_ready(&mut child);
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Log::default());
        let kept = log.clone();
        // The log is read all the time, so that no line is lost.
        let log_reader = std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).unwrap() > 0 {
                kept.text.lock().unwrap().push_str(&line);
                kept.has_grown.notify_all();
                line.clear();
            }
        });
        let mut daemon = Self {
            eventfds_and_sockets: 0,
            child,
            log,
            log_reader: Some(log_reader),
            directory,
            socket,
        };
        daemon.eventfds_and_sockets = daemon.holds().eventfds_and_sockets;
        daemon
    }

    /// Returns the number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn proc(&self, what: &str) -> PathBuf {
        format!("/proc/{}/{what}", self.child.id()).into()
    }

    pub(crate) fn holds(&self) -> Holds {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let kib = |name: &str| {
            let figure = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            figure.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let maps = std::fs::read_to_string(self.proc("maps")).unwrap();
        let files: Vec<PathBuf> = std::fs::read_dir(self.proc("fd"))
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .collect();
        let is_eventfd_or_socket = |file: &&PathBuf| {
            let name = file.to_string_lossy();
            name.starts_with("socket:") || name.contains("eventfd")
        };
        let epoll_set = |file: &&PathBuf| file.to_string_lossy().contains("[eventpoll]");
        Holds {
            descriptors: files.len(),
            epoll_sets: files.iter().filter(epoll_set).count(),
            eventfds_and_sockets: files.iter().filter(is_eventfd_or_socket).count(),
            mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
            rss_kib: kib("VmRSS:"),
            anonymous_kib: kib("RssAnon:"),
        }
    }

    /// Returns the resources without a client, after the daemon has made everything that it makes only once.
    /// A loop that has waited for long enough makes an epoll set.
    pub(crate) fn settled(&self) -> Holds {
        let mut client = Client::simple(&self.socket);
        let deadline = Instant::now() + LONG;
        // Only waits count: a loop that gets a request while it polls does not wait.
        while self.holds().epoll_sets == 0 {
            client.read(0, 0, 512).unwrap();
            assert!(Instant::now() < deadline, "the loop has no other way to wait");
        }
        drop(client);
        loop {
            let holds = self.holds();
            if holds.eventfds_and_sockets == self.eventfds_and_sockets {
                return holds;
            }
            assert!(
                Instant::now() < deadline,
                "the daemon keeps a client that has gone: {holds:?}"
            );
            std::thread::yield_now();
        }
    }

    /// Returns the number of mapped regions of client memory.
    pub(crate) fn mapped_regions(&self) -> usize {
        self.holds().mappings
    }

    /// Checks that the daemon keeps no memory, socket or eventfd of its clients, once it has handled their
    /// ends.
    pub(crate) fn has_let_go(&self) {
        let deadline = Instant::now() + LONG;
        loop {
            let now = self.holds();
            if now.eventfds_and_sockets == self.eventfds_and_sockets && now.mappings == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "it keeps {now:?}");
            std::thread::yield_now();
        }
    }

    /// Returns the CPU time so far, in clock ticks.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        fields[11..13]
            .iter()
            .map(|field| field.parse::<u64>().unwrap())
            .sum()
    }

    /// Checks that the daemon serves a valid client.
    pub(crate) fn serves(&self) {
        let mut client = Client::simple(&self.socket);
        let data = pattern(fastrand::u64(..), 512);
        client.write(0, 512 * 100, &data).unwrap();
        assert_eq!(client.read(0, 512 * 100, 512).unwrap(), data);
    }

    /// Checks that the idle daemon, without a client, uses nearly no CPU time within a fifth of a second. (A
    /// spinning daemon would use all the time that it gets, which is at least a quarter of that time on a
    /// machine with work for four.)
    pub(crate) fn is_at_rest(&self) {
        let window = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        let mut used = 0;
        for _ in 0..5 {
            let before = self.ticks();
            let waited = rustix::event::poll(&mut [], Some(&window));
            waited.unwrap();
            used = self.ticks() - before;
            if used <= 1 {
                return;
            }
        }
        panic!("the daemon used {used} ticks of CPU time while there was nothing to do");
    }

    /// Checks that the daemon holds the same resources as at `before`, once it has handled the end of its
    /// last client.
    pub(crate) fn holds_the_same_as(&self, before: Holds) {
        let deadline = Instant::now() + LONG;
        loop {
            let now = self.holds();
            // Each loop makes a set once it has waited for long enough.
            let most_sets = before.epoll_sets.max(crate::iothreads());
            if now.fixed_descriptors() == before.fixed_descriptors()
                && now.epoll_sets <= most_sets
                && now.mappings <= before.mappings
            {
                return;
            }
            assert!(Instant::now() < deadline, "{before:?} has become {now:?}");
            std::thread::yield_now();
        }
    }

    /// Waits until the log contains `part`.
    pub(crate) fn logs(&self, part: &str) {
        let text = self.log.text.lock().unwrap();
        let is_missing = |text: &mut String| !text.contains(part);
        let (text, waited) = self
            .log
            .has_grown
            .wait_timeout_while(text, LONG, is_missing)
            .unwrap();
        assert!(!waited.timed_out(), "{part} is not in {text}");
    }

    /// Ends the daemon with SIGTERM, and returns its log.
    pub(crate) fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        self.log_reader.take().unwrap().join().unwrap();
        std::mem::take(&mut self.log.text.lock().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
