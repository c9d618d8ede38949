//! C8: an image that is slow or hangs delays only its own export.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use blockd::Source;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

use super::{attempt, failing_with};
use crate::client::{Client, pattern};
use crate::daemon::Daemon;
use crate::raw::{DATA, Raw};
use crate::server::{Server, Wanted};

/// A file system on a file of its own that can be frozen: writes to it then wait. It is thawed and unmounted
/// when this value is dropped.
pub(crate) struct Freezable {
    /// Unmounted before the file is removed.
    directory: tempfile::TempDir,
}

impl Freezable {
    /// Mounts a file system, if this user may.
    pub(crate) fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ext4");
        File::create(&file).unwrap().set_len(32 << 20).unwrap();
        attempt(Command::new("mkfs.ext4").arg("-q").arg(&file))?;
        std::fs::create_dir(directory.path().join("mounted")).unwrap();
        let system = Self { directory };
        attempt(
            Command::new("mount")
                .args(["-o", "loop"])
                .args([&file, &system.path()]),
        )?;
        let image = File::create(system.image()).unwrap();
        image.set_len(1 << 20).unwrap();
        image.sync_all().unwrap();
        Some(system)
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("mounted")
    }

    pub(crate) fn image(&self) -> std::path::PathBuf {
        self.path().join("disk.raw")
    }

    pub(crate) fn freeze(&self) {
        attempt(Command::new("fsfreeze").arg("-f").arg(self.path())).unwrap();
    }

    pub(crate) fn thaw(&self) {
        attempt(Command::new("fsfreeze").arg("-u").arg(self.path())).unwrap();
    }

    /// Thaws the file system if it is frozen, after a failure.
    pub(crate) fn try_to_thaw(&self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(self.path()).output();
    }
}

impl Drop for Freezable {
    fn drop(&mut self) {
        if thread::panicking() {
            self.try_to_thaw();
        }
        attempt(Command::new("umount").arg(self.path()));
    }
}

/// Returns a server in this process with the image of a file system that can be frozen, and a disk in memory.
fn server(system: &Freezable) -> Server {
    let server = Wanted::new().export(Source::File(system.image()), 2);
    server.export(Source::Ram(1 << 20), 1).start()
}

/// Checks that the neighbour is served.
fn is_served(socket: &Path) {
    let mut client = Client::simple(socket);
    for round in 0..100 {
        let data = pattern(round, 4096);
        client.write(0, 4096 * (round % 16), &data).unwrap();
        assert_eq!(client.read(0, 4096 * (round % 16), 4096).unwrap(), data);
    }
}

#[test]
fn c8_a_frozen_image_holds_up_only_its_own_export() {
    let Some(system) = Freezable::mount() else {
        return;
    };
    let server = server(&system);
    let mut raw = Raw::ready(&server.socket(0));
    raw.put(DATA, &[7; 512]);
    system.freeze();
    let before = raw.used();
    raw.offer_request(1, 5, &[(DATA, 512)], 0);
    is_served(&server.socket(1));
    assert_eq!(raw.used(), before, "a frozen file system completes no write");
    system.thaw();
    raw.wait_used(before.wrapping_add(1));
    assert_eq!(raw.read_sector(5), [7; 512]);
}

/// Discards and zeroes wait like writes, and so do the flushes after them.
#[test]
fn c8_clears_and_flushes_of_a_frozen_image_hold_up_only_its_own_export() {
    let Some(system) = Freezable::mount() else {
        return;
    };
    let server = server(&system);
    let mut raw = Raw::ready(&server.socket(0));
    let range = |sector: u64, flags: u64| [sector.to_le_bytes(), (8 | flags << 32).to_le_bytes()].concat();
    raw.put(DATA, &[range(8, 0), range(16, 1), range(24, 0)].concat());
    system.freeze();
    let before = raw.used();
    for (kind, place) in [(11, 0), (13, 16), (13, 32)] {
        // The driver of this client does not flush, so each of these requests is flushed.
        raw.offer_request(kind, 0, &[(DATA + place, 16)], 0);
    }
    is_served(&server.socket(1));
    assert_eq!(raw.used(), before, "a frozen file system clears nothing");
    system.thaw();
    raw.wait_used(before.wrapping_add(3));
    assert_eq!(raw.read_sector(16), [0; 512]);
}

/// After the daemon has replied, it may not write to the client's memory or the image.
#[test]
fn c8_a_message_waits_for_the_requests_that_were_taken() {
    let Some(system) = Freezable::mount() else {
        return;
    };
    let server = server(&system);
    let mut raw = Raw::ready(&server.socket(0));
    raw.put(DATA, &[9; 512]);
    system.freeze();
    let before = raw.used();
    raw.offer_request(1, 3, &[(DATA, 512)], 0);
    // The request was taken by now, because the neighbour, whose request came later, was served.
    is_served(&server.socket(1));
    let (answered, is_answered) = mpsc::channel();
    let stopping = thread::spawn(move || {
        let base = raw.frontend.get_vring_base(0).unwrap();
        answered.send((base, raw.used())).unwrap();
        raw
    });
    is_served(&server.socket(1));
    assert!(is_answered.try_recv().is_err(), "answered while a write goes on");
    system.thaw();
    let next = before.wrapping_add(1);
    assert_eq!(is_answered.recv(), Ok((u32::from(next), next)));
    let mut raw = stopping.join().unwrap();
    raw.set_up(next);
    raw.frontend.set_vring_enable(0, true).unwrap();
    assert_eq!(raw.read_sector(3), [9; 512]);
}

/// The writes of a client that has disconnected precede those of the next one.
#[test]
fn c8_the_next_client_waits_for_the_requests_of_the_former() {
    let Some(system) = Freezable::mount() else {
        return;
    };
    let server = server(&system);
    let mut raw = Raw::ready(&server.socket(0));
    raw.put(DATA, &[3; 512]);
    system.freeze();
    raw.offer_request(1, 3, &[(DATA, 512)], 0);
    // The request was taken by now, because the neighbour, whose request came later, was served.
    is_served(&server.socket(1));
    drop(raw);
    let socket = server.socket(0);
    let (served, is_over) = mpsc::channel();
    let next = thread::spawn(move || {
        let mut raw = Raw::ready(&socket);
        raw.put(DATA, &[4; 512]);
        assert_eq!(raw.request(1, 3, &[(DATA, 512)], 0), 0);
        served.send(()).unwrap();
        raw.read_sector(3)
    });
    is_served(&server.socket(1));
    assert!(
        is_over.try_recv().is_err(),
        "served while the former client writes"
    );
    system.thaw();
    assert_eq!(next.join().unwrap(), [4; 512]);
}

/// SIGTERM ends the daemon, and the log lists the incomplete requests. The image takes longer than the daemon
/// waits.
#[test]
fn c8_sigterm_ends_a_daemon_whose_image_hangs() {
    let image = super::Image::new(1 << 20);
    let engine = ["--engine", "threads"];
    let Some(daemon) = failing_with(&["pwrite64:delay_enter=8s"], &image.disk(), &engine) else {
        return;
    };
    let mut raw = Raw::ready(daemon.socket());
    let before = raw.used();
    raw.offer_request(1, 0, &[(DATA, 512)], 0);
    // The read is taken after the write, and completes after it.
    assert_eq!(raw.used(), before);
    let log = daemon.stop();
    assert!(
        log.contains("ends with 1 requests that the image has not completed"),
        "{log}"
    );
    assert_eq!(raw.used(), before);
}

/// Every engine serves images in the same way.
#[test]
fn c8_every_engine_serves_images() {
    for engine in ["auto", "uring", "threads", "sync"] {
        let image = super::Image::new(1 << 20);
        let daemon = Daemon::start(&image.disk(), &["--engine", engine]);
        for seed in 0..3 {
            let mut client = Client::simple(daemon.socket());
            let data = pattern(seed, 64 * 1024);
            client.write(0, 4096 * seed, &data).unwrap();
            client.flush(0).unwrap();
            assert_eq!(client.read(0, 4096 * seed, 64 * 1024).unwrap(), data, "{engine}");
        }
        assert_eq!(daemon.stop(), "");
    }
}

/// The system keeps the process while one of its threads waits for a frozen file system, but the process
/// serves no clients.
#[test]
fn c8_sigterm_ends_the_service_of_a_frozen_image() {
    let Some(system) = Freezable::mount() else {
        return;
    };
    let daemon = Daemon::start(&format!("path={}", system.image().display()), &[]);
    let mut raw = Raw::ready(daemon.socket());
    system.freeze();
    raw.offer_request(1, 0, &[(DATA, 512)], 0);
    let socket = daemon.socket().to_owned();
    let stopping = thread::spawn(move || daemon.stop());
    while socket.exists() {
        thread::yield_now();
    }
    system.thaw();
    let log = stopping.join().unwrap();
    assert!(
        log.contains("ends with 1 requests that the image has not completed"),
        "{log}"
    );
}

/// The file system has no reads that do not wait, and the data are not in memory. The ring or threads read
/// them.
#[test]
fn c8_what_cannot_be_read_at_once_is_read_later() {
    for error in ["EOPNOTSUPP", "EAGAIN"] {
        let image = super::Image::new(1 << 20);
        let data = pattern(8, 1 << 20);
        std::fs::write(image.path(), &data).unwrap();
        let fault = format!("preadv2:error={error}");
        let Some(daemon) = failing_with(&[&fault], &image.disk(), &["--engine", "auto"]) else {
            return;
        };
        let mut client = Client::simple(daemon.socket());
        for at in [0, 4096, 65536] {
            assert_eq!(
                client.read(0, at as u64, 4096).unwrap(),
                data[at..at + 4096],
                "{error}"
            );
        }
        drop(client);
        assert_eq!(daemon.stop(), "");
    }
}
