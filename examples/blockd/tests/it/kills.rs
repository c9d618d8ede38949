//! A daemon that is killed during writes, over both protocols and with both engines. No acknowledged write is
//! lost, and no request hangs. The variable `BLOCKD_KILLS` sets the number of kills for each; `cargo xtask
//! prove` sets 100.

use std::io::Read;
use std::path::Path;
use std::process::Child;

use crate::engines;
use crate::killed::{BLOCK, BLOCKS, Expected, data};
use crate::nbd::client::{self as nbd, FLUSH, WRITE};
use crate::process::{ready, terminate};
use crate::raw::{EVENT_IDX, GUEST, HEADER, NEXT, PROTOCOL, Raw, STATUS, VERSION_1, WRITE as DEVICE_WRITES};

const FEATURES: u64 = VERSION_1 | PROTOCOL | EVENT_IDX;
/// The number of simultaneous requests over vhost-user: those that fit in the queue.
const SLOTS: usize = 5;
/// The guest address of the data of the slots.
const BUFFERS: u64 = GUEST + 0x1_0000;

fn kills() -> u32 {
    std::env::var("BLOCKD_KILLS").map_or(5, |count| count.parse().unwrap())
}

/// The counts of a test.
#[derive(Default)]
struct Tally {
    kills: u32,
    writes: usize,
    flushes: usize,
    /// The writes that were outstanding when the daemon was killed.
    under_way: usize,
    /// The kills of a daemon that tracked its requests in flight.
    tracked: u32,
}

impl Tally {
    fn report(&self, name: &str) {
        let tracked = match self.tracked {
            0 => String::new(),
            count => format!(", {count} of them with in-flight tracking"),
        };
        println!(
            "kills: {name}: {} kills{tracked}, {} writes and {} flushes acknowledged, {} writes under way, 0 lost, \
             0 hung",
            self.kills, self.writes, self.flushes, self.under_way
        );
        assert!(self.writes > 0);
        // A small number of kills can all come too late.
        assert!(self.kills < 50 || self.under_way > 0);
    }
}

/// A directory with an image, and the daemons that serve it one after the other.
struct Scene {
    directory: tempfile::TempDir,
    engine: &'static str,
    /// The disk that the daemon serves instead of the image.
    instead: Option<&'static str>,
    daemon: Option<Child>,
    random: fastrand::Rng,
    expected: Expected,
    next: u64,
    tally: Tally,
}

impl Scene {
    fn new(engine: &'static str) -> Self {
        let scene = Self {
            directory: tempfile::tempdir().unwrap(),
            engine,
            instead: None,
            daemon: None,
            random: crate::seed(),
            expected: Expected::default(),
            next: 0,
            tally: Tally::default(),
        };
        std::fs::write(scene.at("image"), vec![0; BLOCKS as usize * 2 * BLOCK]).unwrap();
        scene
    }

    fn at(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn start(&mut self) {
        let image = format!("path={}", self.at("image"));
        let disk = self.instead.unwrap_or(&image);
        let export = format!("{disk},socket={},name=disk", self.at("a.sock"));
        let nbd = self.at("nbd.sock");
        let options = ["--engine", self.engine, "--poll-max", "50us", "--nbd", &nbd];
        self.daemon = Some(ready(&[&["--export", &export][..], &options].concat()));
    }

    /// Ends the daemon in order.
    fn stop(&mut self) {
        terminate(self.daemon.take().unwrap());
    }

    /// Records the beginning of `count` writes. Returns their different blocks, contents and numbers.
    fn begin(&mut self, count: usize) -> Vec<(u64, Vec<u8>, u64)> {
        let mut blocks: Vec<u64> = (0..BLOCKS).collect();
        self.random.shuffle(&mut blocks);
        blocks
            .into_iter()
            .take(count)
            .map(|block| {
                self.next += 1;
                self.expected.begun(block, self.next);
                (block, data(block, self.next), self.next)
            })
            .collect()
    }

    fn acknowledged(&mut self, block: u64, write: u64) {
        self.expected.done(block, write);
        self.tally.writes += 1;
    }

    /// Kills the daemon at a random moment.
    fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        for _ in 0..self.random.u32(..60_000) {
            std::hint::spin_loop();
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        self.tally.kills += 1;
    }

    fn image(&self) -> Vec<u8> {
        std::fs::read(self.at("image")).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // After a failure the daemon still runs.
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap_or_default();
            daemon.wait().map(drop).unwrap_or_default();
        }
    }
}

/// A queue with writes in its slots.
struct Queue {
    raw: Raw,
    /// The write of each slot.
    slots: Vec<(u64, u64)>,
    /// The position up to which the used ring was read.
    seen: u16,
}

impl Queue {
    /// Connects again. The area for in-flight tracking, if there is one, stays.
    fn reconnect(&mut self, scene: &mut Scene, base: u16) {
        let socket = scene.at("a.sock");
        self.raw.reconnect(Path::new(&socket), FEATURES, base);
    }

    /// Turns in-flight tracking by the daemon on or off. No request is outstanding.
    fn track(&mut self, scene: &mut Scene, is_tracked: bool) {
        match is_tracked {
            true => self.raw.get_inflight(1),
            false => self.raw.inflight = None,
        }
        let position = self.raw.used();
        self.reconnect(scene, position);
    }

    fn offer(&mut self, scene: &mut Scene) {
        let count = scene.random.usize(1..=SLOTS);
        self.slots.clear();
        for (slot, (block, data, write)) in scene.begin(count).into_iter().enumerate() {
            let at = slot as u64;
            let buffer = BUFFERS + at * BLOCK as u64;
            self.header(slot, 1, block * 2 * (BLOCK / 512) as u64);
            self.raw.put(buffer, &data);
            let head = 3 * slot as u16;
            self.raw.describe(head, HEADER + 16 * at, 16, NEXT, head + 1);
            self.raw.describe(head + 1, buffer, BLOCK as u32, NEXT, head + 2);
            self.raw.describe(head + 2, STATUS + at, 1, DEVICE_WRITES, 0);
            self.slots.push((block, write));
            self.raw.offer(head);
        }
    }

    fn header(&self, slot: usize, kind: u64, sector: u64) {
        let at = HEADER + 16 * slot as u64;
        self.raw
            .put(at, &[kind.to_le_bytes(), sector.to_le_bytes()].concat());
        self.raw.put(STATUS + slot as u64, &[0xff]);
    }

    /// Takes the entries that the device has used since the last call.
    fn take(&mut self, scene: &mut Scene) {
        let used = self.raw.used();
        while self.seen != used {
            let (head, _) = self.raw.used_entry(self.seen);
            let slot = head as usize / 3;
            assert_eq!(self.raw.get(STATUS + slot as u64, 1), [0], "slot {slot}");
            let (block, write) = self.slots[slot];
            scene.acknowledged(block, write);
            self.seen = self.seen.wrapping_add(1);
        }
    }

    /// Waits until all requests are complete. Panics if one hangs.
    fn finish(&mut self, scene: &mut Scene) {
        self.raw.wait_used(self.raw.offered());
        self.take(scene);
    }

    fn flush(&mut self, scene: &mut Scene) {
        self.header(0, 4, 0);
        self.raw.describe(0, HEADER, 16, NEXT, 1);
        self.raw.describe(1, STATUS, 1, DEVICE_WRITES, 0);
        self.raw.offer(0);
        self.raw.wait_used(self.raw.offered());
        assert_eq!(self.raw.get(STATUS, 1), [0]);
        self.seen = self.raw.used();
        scene.tally.flushes += 1;
    }
}

/// Runs a client that reconnects. The next daemon completes the requests that were outstanding.
fn over_vhost_user(scene: &mut Scene) -> Result<(), String> {
    let socket = scene.at("a.sock");
    let socket = Path::new(&socket);
    scene.start();
    let mut queue = Queue {
        raw: Raw::connect(socket),
        slots: Vec::new(),
        seen: 0,
    };
    queue.reconnect(scene, 0);
    for round in 0..kills() {
        let is_tracked = round % 2 == 1;
        queue.track(scene, is_tracked);
        scene.tally.tracked += u32::from(is_tracked);
        for _ in 0..scene.random.u8(..4) {
            queue.offer(scene);
            queue.finish(scene);
            if scene.random.bool() {
                queue.flush(scene);
            }
        }
        queue.offer(scene);
        scene.kill();
        queue.take(scene);
        let outstanding = queue.raw.offered().wrapping_sub(queue.raw.used());
        scene.tally.under_way += usize::from(outstanding);
        let image = scene.image();
        // The next daemon executes the writes that have begun, so the real expectation keeps them.
        scene.expected.clone().check(&image)?;
        scene.start();
        // The base is the used index, the available index, or one between them.
        let base = queue.raw.used().wrapping_add(scene.random.u16(..=outstanding));
        queue.reconnect(scene, base);
        queue.finish(scene);
        let image = scene.image();
        scene.expected.check(&image)?;
    }
    scene.stop();
    Ok(())
}

/// Runs a client that connects again, and repeats the writes that were not acknowledged.
fn over_nbd(scene: &mut Scene) -> Result<(), String> {
    let socket = scene.at("nbd.sock");
    scene.start();
    for _ in 0..kills() {
        let mut client = nbd::Client::simple(Path::new(&socket), "disk");
        for _ in 0..scene.random.u8(..4) {
            let count = scene.random.usize(1..=16);
            send(&mut client, scene, count, |client, scene, mut sent| {
                while !sent.is_empty() {
                    let reply = client.next_reply();
                    assert_eq!(reply.result, Ok(Vec::new()));
                    let at = sent.iter().position(|(cookie, ..)| *cookie == reply.cookie);
                    let (_, block, write) = sent.swap_remove(at.unwrap());
                    scene.acknowledged(block, write);
                }
            });
            if scene.random.bool() {
                assert_eq!(client.run(FLUSH, 0, 0, 0), Ok(Vec::new()));
                scene.tally.flushes += 1;
            }
        }
        let count = scene.random.usize(1..=16);
        send(&mut client, scene, count, |client, scene, mut sent| {
            scene.kill();
            let mut replies = Vec::new();
            // The connection is reset if the daemon had not read all bytes.
            client
                .stream
                .read_to_end(&mut replies)
                .map(drop)
                .unwrap_or_default();
            for reply in replies.chunks_exact(16) {
                assert_eq!(reply[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
                let cookie = u64::from_be_bytes(reply[8..].try_into().unwrap());
                let at = sent.iter().position(|(sent, ..)| *sent == cookie);
                let (_, block, write) = sent.swap_remove(at.unwrap());
                scene.acknowledged(block, write);
            }
            scene.tally.under_way += sent.len();
        });
        let image = scene.image();
        scene.expected.check(&image)?;
        scene.start();
    }
    scene.stop();
    Ok(())
}

/// Sends `count` writes, and passes on their cookies, blocks and numbers.
fn send(
    client: &mut nbd::Client,
    scene: &mut Scene,
    count: usize,
    then: impl FnOnce(&mut nbd::Client, &mut Scene, Vec<(u64, u64, u64)>),
) {
    let mut sent = Vec::new();
    for (block, data, write) in scene.begin(count) {
        let flags = u16::from(scene.random.u8(..4) == 0) * nbd::FUA;
        let (cookie, header) = client.message(WRITE, flags, block * 2 * BLOCK as u64, BLOCK);
        std::io::Write::write_all(&mut client.stream, &[header, data].concat()).unwrap();
        sent.push((cookie, block, write));
    }
    then(client, scene, sent);
}

fn run(name: &str, engine: &'static str, over: fn(&mut Scene) -> Result<(), String>) {
    let mut scene = Scene::new(engine);
    over(&mut scene).unwrap();
    scene.tally.report(&format!("{name}, {engine}"));
}

#[test]
fn c6_kill_9_under_writes_over_vhost_user_with_threads() {
    run("vhost-user", "threads", over_vhost_user);
}

#[test]
fn c6_kill_9_under_writes_over_vhost_user_on_the_ring() {
    if engines::has_ring() {
        run("vhost-user", "uring", over_vhost_user);
    }
}

#[test]
fn c6_kill_9_under_writes_over_nbd_with_threads() {
    run("NBD", "threads", over_nbd);
}

#[test]
fn c6_kill_9_under_writes_over_nbd_on_the_ring() {
    if engines::has_ring() {
        run("NBD", "uring", over_nbd);
    }
}

/// Tests the check itself: a daemon with a disk in memory loses all writes when it is killed.
#[test]
fn a_daemon_that_loses_acknowledged_writes_is_found() {
    for over in [over_vhost_user, over_nbd] {
        let mut scene = Scene::new("threads");
        scene.instead = Some("ram=512K");
        let lost = over(&mut scene).unwrap_err();
        assert!(lost.contains("is acknowledged"), "{lost}");
    }
}
