//! Requests of valid clients, on every kind of socket and with every engine.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};

use super::client::{BLOCK_STATUS, Client, FUA, LIST, NO_HOLE, READ, Reply, TRIM, WRITE_ZEROES, string};
use super::start;
use crate::client::pattern;
use crate::daemon::Daemon;
use crate::images::Image;
use crate::process::{ready, terminate};
use crate::seed;

const BLOCK: usize = 64 * 1024;
const BLOCKS: usize = 128;

#[test]
fn vhost_user_and_nbd_share_a_disk() {
    let (daemon, path) = start("ram=1M", &[]);
    let mut client = Client::simple(&path, "disk");
    assert_eq!(client.size, 1 << 20);
    client.write(4096, &pattern(1, 5000)).unwrap();
    let mut other = Client::structured(&path, "");
    assert_eq!(other.read(4096, 5000).unwrap(), pattern(1, 5000));
    let mut guest = crate::client::Client::simple(daemon.socket());
    assert_eq!(guest.read(0, 4096, 4096).unwrap(), pattern(1, 5000)[..4096]);
    guest.write(0, 0, &pattern(2, 4096)).unwrap();
    assert_eq!(client.read(0, 4096).unwrap(), pattern(2, 4096));
    client.flush().unwrap();
    drop((client, other, guest));
    assert_eq!(daemon.stop(), "", "nothing went wrong, so nothing is logged");
}

/// Returns a free port of the loopback interface. Another process could take it before the daemon does.
fn free(address: &str) -> Option<SocketAddr> {
    match TcpListener::bind(address) {
        Ok(listener) => listener.local_addr().ok(),
        Err(error) => {
            println!("skipped: {address}: {error}");
            None
        }
    }
}

#[test]
fn exports_without_a_socket_are_served_over_tcp() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Some(address) = free(address) else { continue };
        let nbd = address.to_string();
        let args = [
            "--nbd",
            &nbd,
            "--export",
            "ram=1M,name=a",
            "--export",
            "null=2M,readonly",
        ];
        let child = ready(&args);
        let mut client = Client::tcp(address);
        let listed = client.option(LIST, &[]);
        assert!(listed[0].1.starts_with(&string("a")) && listed[1].1.starts_with(&string("null")));
        let mut client = client.choose("a");
        client.write(0, &pattern(3, 300_000)).unwrap();
        assert_eq!(client.read(0, 300_000).unwrap(), pattern(3, 300_000));
        let mut read_only = Client::tcp(address).choose("null");
        assert_eq!(read_only.size, 2 << 20);
        assert_eq!(read_only.flags & 2, 2);
        assert_eq!(read_only.write(0, &[0; 512]), Err(1));
        assert_eq!(read_only.read(0, 512).unwrap(), [0; 512]);
        drop((client, read_only));
        terminate(child);
    }
}

/// The requests of one client, several at a time, each for a block of its own, compared with a model.
struct Model {
    client: Client,
    contents: Vec<u8>,
    /// The expected result of each outstanding request, and its block.
    expected: HashMap<u64, (Option<Vec<u8>>, usize)>,
    random: fastrand::Rng,
}

impl Model {
    fn start_one(&mut self) {
        let busy: Vec<usize> = self.expected.values().map(|(_, block)| *block).collect();
        let block = loop {
            let block = self.random.usize(..BLOCKS);
            if !busy.contains(&block) {
                break block;
            }
        };
        let from = block * BLOCK + self.random.usize(..BLOCK);
        let len = self.random.usize(1..=(block + 1) * BLOCK - from);
        let range = from..from + len;
        let fua = if self.random.u8(..8) == 0 { FUA } else { 0 };
        let (cookie, expected) = match self.random.u8(..8) {
            0..3 => {
                let data = pattern(self.random.u64(..), len);
                self.contents[range].copy_from_slice(&data);
                (self.client.start_write(fua, from as u64, &data), None)
            }
            3 => {
                self.contents[range].fill(0);
                let flags = fua | if self.random.bool() { NO_HOLE } else { 0 };
                (self.client.start(WRITE_ZEROES, flags, from as u64, len), None)
            }
            _ => {
                let expected = self.contents[range].to_vec();
                (self.client.start(READ, 0, from as u64, len), Some(expected))
            }
        };
        self.expected.insert(cookie, (expected, block));
    }

    fn end_one(&mut self) {
        let Reply { cookie, result } = self.client.next_reply();
        let (expected, _) = self.expected.remove(&cookie).unwrap();
        assert!(result == Ok(expected.unwrap_or_default()), "request {cookie}");
    }
}

#[test]
fn random_requests_agree_with_a_model() {
    let mut random = seed();
    let bytes = (BLOCK * BLOCKS) as u64;
    let image = Image::new(bytes);
    let (ram, file) = ("ram=8M".to_owned(), image.disk());
    for (disk, engine) in [
        (&ram, "auto"),
        (&file, "auto"),
        (&file, "threads"),
        (&file, "uring"),
        (&file, "sync"),
    ] {
        image.clear(bytes);
        let (daemon, path) = start(disk, &["--engine", engine]);
        let mut contents = vec![0; bytes as usize];
        for structured in [false, true] {
            let client = if structured {
                Client::structured
            } else {
                Client::simple
            };
            let mut model = Model {
                client: client(&path, "disk"),
                contents,
                expected: HashMap::new(),
                random: random.fork(),
            };
            for _ in 0..600 {
                if model.expected.len() < 16 && model.random.u8(..3) > 0 {
                    model.start_one();
                } else if !model.expected.is_empty() {
                    model.end_one();
                }
            }
            while !model.expected.is_empty() {
                model.end_one();
            }
            model.client.flush().unwrap();
            let all = model.client.read(0, bytes as usize).unwrap();
            assert!(all == model.contents, "{disk} with --engine {engine}");
            contents = model.contents;
        }
        let log = daemon.stop();
        // If the system has no io_uring, the log reports that threads are used instead.
        let is_without_ring = engine == "uring" && log.contains("threads execute the requests of images");
        assert!(log.is_empty() || is_without_ring, "{log}");
    }
}

/// More requests than threads may execute at a time, all sent before the first reply is read.
#[test]
fn many_requests_of_one_client_at_a_time() {
    let image = Image::new(8 << 20);
    for (disk, engine) in [
        ("ram=8M".to_owned(), "auto"),
        (image.disk(), "threads"),
        (image.disk(), "sync"),
    ] {
        let (_daemon, path) = start(&disk, &["--engine", engine]);
        let mut client = Client::structured(&path, "disk");
        let mut outstanding: Vec<u64> = (0..1000).map(|_| client.start(READ, 0, 0, 512)).collect();
        while !outstanding.is_empty() {
            let reply = client.next_reply();
            outstanding.retain(|cookie| *cookie != reply.cookie);
            assert_eq!(reply.result.unwrap(), [0; 512]);
        }
    }
}

#[test]
fn the_longest_requests() {
    const LEN: usize = 32 << 20;
    let image = Image::new(64 << 20);
    for (disk, engine) in [
        ("ram=64M".to_owned(), "auto"),
        (image.disk(), "threads"),
        (image.disk(), "sync"),
    ] {
        let (_daemon, path) = start(&disk, &["--engine", engine]);
        for structured in [false, true] {
            let client = if structured {
                Client::structured
            } else {
                Client::simple
            };
            let mut client = client(&path, "disk");
            let data = pattern(9, LEN);
            client.write(1000, &data).unwrap();
            assert!(client.read(1000, LEN).unwrap() == data);
            assert_eq!(client.read(0, LEN + 1), Err(22));
            client.run(WRITE_ZEROES, 0, 0, 64 << 20).unwrap();
            assert!(client.read(1000, LEN).unwrap().iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn holes_of_an_image_are_told() {
    let image = Image::new(64 << 20);
    for engine in ["auto", "threads", "sync"] {
        image.clear(64 << 20);
        let (_daemon, path) = start(&image.disk(), &["--engine", engine]);
        let mut client = Client::structured(&path, "disk");
        for block in 0..4 {
            client.write((block * 16) << 20, &[1; BLOCK]).unwrap();
        }
        let extents = client.status(0, 64 << 20);
        if extents == [(64 << 20, false)] {
            println!("skipped: the file system of the temporary directory has no holes");
            return;
        }
        let pair = [(BLOCK as u32, false), ((16 << 20) - BLOCK as u32, true)];
        assert_eq!(extents, [pair, pair, pair, pair].concat());
        client.run(TRIM, 0, 0, 32 << 20).unwrap();
        assert_eq!(
            client.status(0, 33 << 20),
            [
                (32 << 20, true),
                (BLOCK as u32, false),
                ((1 << 20) - BLOCK as u32, true)
            ]
        );
        let mut without = Client::simple(&path, "disk");
        assert_eq!(without.run(BLOCK_STATUS, 0, 0, 512), Err(22));
    }
}

/// With several exports a client must name one.
#[test]
fn the_empty_name_is_ambiguous() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let nbd = path.display().to_string();
    let daemon = Daemon::start("ram=1M", &["--nbd", &nbd, "--export", "ram=2M,name=b"]);
    let mut client = Client::unix(&path);
    let refused = client.option(super::client::GO, &[0; 6]);
    assert!(
        String::from_utf8_lossy(&refused[0].1).contains("name one"),
        "{refused:?}"
    );
    assert_eq!(client.choose("a.sock").size, 1 << 20);
    assert_eq!(Client::simple(&path, "b").size, 2 << 20);
    daemon.stop();
}
