//! The log: its failures delay no request, and clients cannot fill it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::OFlags;

use crate::client::{Client, pattern};
use crate::messages::message;
use crate::process::{blockd, terminate, wait_ready};
use crate::raw::{DATA, HEADER, NEXT, Raw, STATUS, WRITE};

/// A directory with two exports `a` and `b`, not started yet.
struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let exports = ["a", "b"].map(|name| format!("ram=1M,socket={},queues=1", self.at(name).display()));
        let mut args = vec!["--export", &exports[0], "--export", &exports[1]];
        args.extend(more);
        blockd(&args)
    }

    /// Starts the daemon with `log` as its standard error, and waits until it is ready.
    fn start(&self, mut command: Command, log: impl Into<Stdio>) -> Child {
        let mut child = command.stderr(log).spawn().unwrap();
        wait_ready(&mut child);
        child
    }
}

/// Sends a message of an unknown type, and waits for the end of the connection.
fn garbage(socket: &Path) {
    let mut client = UnixStream::connect(socket).unwrap();
    client.write_all(&message(99, &[])).unwrap();
    // The read returns the end of the connection, or a reset.
    drop(client.read(&mut [0; 16]));
}

/// Ends the daemon and reads its log.
fn log_of(child: Child, mut reader: PipeReader) -> String {
    terminate(child);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

/// Checks that other clients are served before, between and after the logged lines, and that the daemon ends
/// in order.
fn others_are_served(scene: &Scene, child: Child, connections: usize) {
    let mut client = Client::simple(&scene.at("b"));
    for round in 0..connections {
        garbage(&scene.at("a"));
        let data = pattern(round as u64, 512);
        client.write(0, 0, &data).unwrap();
        assert_eq!(client.read(0, 0, 512).unwrap(), data);
    }
    drop(client);
    Raw::ready(&scene.at("a")).read_sector(0);
    terminate(child);
    assert!(!scene.at("a").exists() && !scene.at("b").exists());
}

#[test]
fn c1_a_log_on_a_full_device() {
    let scene = Scene::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = scene.start(scene.command(&[]), full);
    others_are_served(&scene, child, 20);
}

#[test]
fn c1_a_log_whose_reader_has_died() {
    let scene = Scene::new();
    let (reader, log) = std::io::pipe().unwrap();
    let child = scene.start(scene.command(&[]), log);
    drop(reader);
    others_are_served(&scene, child, 20);
}

/// Returns a pipe that is full from the beginning. Its reading end never reads.
fn full_pipe() -> (PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

#[test]
fn c20_a_log_pipe_that_is_not_read() {
    let scene = Scene::new();
    let (_reader, log) = full_pipe();
    let child = scene.start(scene.command(&[]), log);
    others_are_served(&scene, child, 1000);
}

/// The log is not read while lines are written to it. It is read later.
#[test]
fn c20_lines_wait_for_a_slow_reader() {
    let scene = Scene::new();
    let (mut reader, log) = full_pipe();
    let mut command = scene.command(&["--poll-max", "1ms", "--policy", "always"]);
    command.env("BLOCKD_LOG", "trace");
    let child = scene.start(command, log);
    for _ in 0..50 {
        garbage(&scene.at("a"));
    }
    let text = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    terminate(child);
    let text = text.join().unwrap();
    assert!(text.contains("message type 99 is unknown"));
}

#[test]
fn c20_messages_caused_by_clients_are_limited() {
    const CONNECTIONS: usize = 1000;
    let scene = Scene::new();
    let (reader, log) = std::io::pipe().unwrap();
    let child = scene.start(scene.command(&[]), log);
    for _ in 0..CONNECTIONS {
        garbage(&scene.at("a"));
    }
    let text = log_of(child, reader);
    let logged = text
        .lines()
        .filter(|line| line.contains("the connection ends"))
        .count();
    assert!((1..500).contains(&logged), "{text}");
    assert_eq!(logged + suppressed(&text), CONNECTIONS, "{text}");
}

/// Returns the sum of all counts of suppressed lines.
fn suppressed(text: &str) -> usize {
    text.lines()
        .filter_map(|line| {
            line.split_once(" suppressed")?
                .0
                .rsplit(' ')
                .next()?
                .parse::<usize>()
                .ok()
        })
        .sum()
}

/// A guest that resets its device repeatedly gets a new queue each time, but not a new budget.
#[test]
fn c20_requests_that_end_with_an_error_are_limited() {
    const RESETS: usize = 200;
    const REQUESTS: u16 = 9;
    let scene = Scene::new();
    let (reader, log) = std::io::pipe().unwrap();
    let child = scene.start(scene.command(&[]), log);
    let mut raw = Raw::ready(&scene.at("a"));
    for reset in 0..RESETS {
        if reset % 2 == 0 {
            drop(raw);
            raw = Raw::ready(&scene.at("a"));
        } else {
            let base = vhost::VhostBackend::get_vring_base(&raw.frontend, 0).unwrap();
            raw.set_up(base as u16);
        }
        raw.header(0, 1 << 40);
        raw.describe(0, HEADER, 16, NEXT, 1);
        raw.describe(1, DATA, 512, NEXT | WRITE, 2);
        raw.describe(2, STATUS, 1, WRITE, 0);
        for _ in 0..REQUESTS {
            raw.offer(0);
            raw.wait_used(raw.offered());
        }
    }
    drop(raw);
    let text = log_of(child, reader);
    let logged = text
        .lines()
        .filter(|line| line.contains("a request ends with an error"))
        .count();
    assert!((1..500).contains(&logged), "{text}");
    assert_eq!(
        logged + suppressed(&text),
        RESETS * usize::from(REQUESTS),
        "{text}"
    );
}

#[test]
fn c31_a_level_that_is_misspelt_keeps_the_warnings() {
    let scene = Scene::new();
    let (reader, log) = std::io::pipe().unwrap();
    let mut command = scene.command(&[]);
    command.env("BLOCKD_LOG", "inof");
    let child = scene.start(command, log);
    garbage(&scene.at("a"));
    let text = log_of(child, reader);
    assert!(text.contains("BLOCKD_LOG=inof is not understood"), "{text}");
    assert!(text.contains("use error, warn, info"), "{text}");
    assert!(text.contains("the connection ends"), "{text}");
}

#[test]
fn c32_a_log_in_a_file_is_plain() {
    let scene = Scene::new();
    let path = scene.at("log");
    let mut command = scene.command(&[]);
    command.env("BLOCKD_LOG", "info").env("TERM", "xterm-256color");
    let child = scene.start(command, File::create(&path).unwrap());
    garbage(&scene.at("a"));
    terminate(child);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("a client has connected") && text.contains("the connection ends"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
}

/// Returns the output of the daemon on a terminal after a client has connected.
fn on_a_terminal(no_color: &str) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let terminal: File = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .unwrap()
        .into();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let scene = Scene::new();
    // The costs are given, so there is no measurement and no line about a busy machine.
    let mut command = scene.command(&["--poll-wake-ns", "10000", "--poll-kick-ns", "500"]);
    command
        .env("BLOCKD_LOG", "info")
        .env("TERM", "xterm")
        .env("NO_COLOR", no_color);
    let child = scene.start(command, OpenOptions::new().write(true).open(name).unwrap());
    garbage(&scene.at("a"));
    let mut line = String::new();
    BufReader::new(terminal).read_line(&mut line).unwrap();
    terminate(child);
    line
}

#[test]
fn c32_a_terminal_has_colours_unless_no_color_is_set() {
    let line = on_a_terminal("");
    assert!(
        line.contains("a client has connected") && line.contains('\x1b'),
        "{line}"
    );
    let line = on_a_terminal("1");
    assert!(
        line.contains("a client has connected") && !line.contains('\x1b'),
        "{line}"
    );
}

#[test]
fn c32_lines_of_json_for_programs() {
    let scene = Scene::new();
    let (reader, log) = std::io::pipe().unwrap();
    let mut command = scene.command(&["--log-format", "json", "--policy", "always"]);
    command.env("BLOCKD_LOG", "inof");
    let child = scene.start(command, log);
    garbage(&scene.at("a"));
    let text = log_of(child, reader);
    let messages: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|value| value["fields"]["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages[0].contains("BLOCKD_LOG"));
    assert!(messages[1].contains("--policy"));
    assert!(messages[2].contains("the connection ends"));
}

/// Starts the daemon with `out` as its standard output, and expects it to fail.
fn fails_to_say_ready(out: impl Into<Stdio>) -> String {
    let scene = Scene::new();
    let output = scene.command(&[]).stdout(out).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!scene.at("a").exists() && !scene.at("b").exists());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn c1_standard_output_that_takes_nothing_ends_the_start() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, unread) = std::io::pipe().unwrap();
    drop(reader);
    for log in [fails_to_say_ready(full), fails_to_say_ready(unread)] {
        assert!(log.contains("cannot write the line"), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// The line `ready` is not read. A signal ends the daemon during its start.
#[test]
fn c1_a_start_that_waits_for_its_output_can_be_ended() {
    let scene = Scene::new();
    let (_reader, out) = full_pipe();
    let child = scene.command(&[]).stdout(out).spawn().unwrap();
    while !scene.at("b").exists() {
        std::thread::yield_now();
    }
    terminate(child);
    assert!(!scene.at("a").exists() && !scene.at("b").exists());
}
