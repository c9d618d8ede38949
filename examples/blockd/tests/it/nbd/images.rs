//! Images served over NBD: failed flushes, slow images, and the end of the daemon in the middle of writes.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::client::{Client, DISC, FLUSH, FUA, READ, TRIM, WRITE, WRITE_ZEROES};
use super::start;
use crate::client::pattern;
use crate::daemon::Daemon;
use crate::images::c08_slow_images::Freezable;
use crate::images::{Image, Overcommitted, failing_with};
use crate::process::{blockd, terminate, wait_ready};
use crate::seed;

const EIO: u32 = 5;
const BLOCK: usize = 4096;

/// Starts a daemon with faults that strace injects into the calls of its threads. Returns the path of its NBD
/// socket, too.
fn failing(faults: &[&str], image: &Image) -> Option<(Daemon, PathBuf)> {
    let path = PathBuf::from(image.socket("nbd.sock"));
    let disk = format!("{},name=disk", image.disk());
    let args = ["--nbd", &path.display().to_string(), "--engine", "threads"];
    let daemon = failing_with(faults, &disk, &args)?;
    Some((daemon, path))
}

#[test]
fn c4_a_failed_flush_is_never_forgotten() {
    let image = Image::new(1 << 20);
    let Some((daemon, path)) = failing(&["fdatasync:error=EIO:when=1"], &image) else {
        return;
    };
    let mut client = Client::structured(&path, "disk");
    client.write(0, &pattern(1, BLOCK)).unwrap();
    for _ in 0..3 {
        assert_eq!(client.flush(), Err(EIO));
    }
    // Another connection gets the error too, also for a write that requests a flush.
    let mut other = Client::simple(&path, "disk");
    other.start_write(FUA, 0, &pattern(2, BLOCK));
    assert_eq!(other.next_reply().result, Err(EIO));
    assert_eq!(other.flush(), Err(EIO));
    assert_eq!(other.read(0, BLOCK).unwrap(), pattern(2, BLOCK));
    drop((client, other));
    let log = daemon.stop();
    assert_eq!(log.matches("may be lost").count(), 1, "{log}");
}

/// With every engine, the device loses written data, and accepts writes again later.
#[test]
fn c4_a_flush_of_a_device_that_loses_data_is_never_forgotten() {
    const LEN: usize = 1 << 20;
    for engine in ["auto", "uring", "threads", "sync"] {
        let Some(device) = Overcommitted::attach() else {
            return;
        };
        let (daemon, path) = start(&device.disk(), &["--engine", engine]);
        let mut client = Client::structured(&path, "disk");
        client.flush().unwrap();
        for at in 0..8 {
            client.write(at * LEN as u64, &pattern(at, LEN)).unwrap();
        }
        // Several flushes run at a time, and the system reports the error to only one of them.
        let flushes: HashSet<_> = (0..8).map(|_| client.start(FLUSH, 0, 0, 0)).collect();
        for _ in 0..8 {
            let reply = client.next_reply();
            assert!(flushes.contains(&reply.cookie));
            assert_eq!(reply.result, Err(EIO), "with --engine {engine}");
        }
        device.grow();
        client.write(0, &pattern(9, LEN)).unwrap();
        // Each request with a flush fails, several at a time.
        client.start_write(FUA, 0, &pattern(9, LEN));
        for command in [WRITE_ZEROES, TRIM, FLUSH] {
            client.start(command, if command == FLUSH { 0 } else { FUA }, 0, BLOCK);
        }
        for _ in 0..4 {
            assert_eq!(client.next_reply().result, Err(EIO), "with --engine {engine}");
        }
        client.read(LEN as u64, BLOCK).unwrap();
        drop(client);
        let log = daemon.stop();
        assert_eq!(log.matches("may be lost").count(), 1, "{log}");
    }
}

/// A frozen image delays only its own requests, and no other client. The requests that have begun are
/// answered once it is thawed.
#[test]
fn c8_a_frozen_image_delays_only_its_own_requests() {
    for engine in ["auto", "uring", "threads"] {
        let Some(system) = Freezable::mount() else {
            return;
        };
        let (daemon, path) = start(
            &format!("path={}", system.image().display()),
            &["--engine", engine],
        );
        let mut client = Client::structured(&path, "disk");
        client.write(8192, &pattern(2, BLOCK)).unwrap();
        system.freeze();
        let mut slow = HashSet::from([client.start_write(0, 0, &pattern(1, BLOCK))]);
        slow.insert(client.start(WRITE_ZEROES, FUA, 8192, BLOCK));
        slow.insert(client.start(TRIM, FUA, 16384, BLOCK));
        for _ in 0..50 {
            let quick = client.start(READ, 0, 32768, BLOCK);
            assert_eq!(client.next_reply().cookie, quick, "with --engine {engine}");
            Client::simple(&path, "disk").read(0, BLOCK).unwrap();
        }
        system.thaw();
        for _ in 0..3 {
            let reply = client.next_reply();
            assert!(slow.remove(&reply.cookie));
            assert_eq!(reply.result, Ok(Vec::new()));
        }
        assert_eq!(client.read(0, BLOCK).unwrap(), pattern(1, BLOCK));
        assert_eq!(client.read(8192, BLOCK).unwrap(), [0; BLOCK]);
        drop(client);
        assert_eq!(daemon.stop(), "");
    }
}

/// Long requests of any position and length are executed in parts, by every engine.
#[test]
fn long_requests_of_any_position_and_length() {
    const LEN: usize = 8 << 20;
    for (engine, cache) in [
        ("uring", ""),
        ("uring", ",cache=none"),
        ("auto", ""),
        ("threads", ""),
    ] {
        let image = Image::new(LEN as u64);
        if !cache.is_empty() && !image.has_direct_access() {
            continue;
        }
        let (daemon, path) = start(&(image.disk() + cache), &["--engine", engine]);
        let mut client = Client::structured(&path, "disk");
        let mut expected = vec![0; LEN];
        let mut random = seed();
        for round in 0..40 {
            // In every second round, the requests are of whole pages.
            let unit = if round % 2 == 0 { 4096 } else { 1 };
            let size = random.usize(1..=5 << 20) / unit * unit;
            let at = random.usize(0..=LEN - size) / unit * unit;
            match round % 5 {
                0..=2 => {
                    let data = pattern(round, size);
                    client.write(at as u64, &data).unwrap();
                    expected[at..at + size].copy_from_slice(&data);
                }
                3 => {
                    client
                        .run(WRITE_ZEROES, round as u16 / 5 % 2 * FUA, at as u64, size)
                        .unwrap();
                    expected[at..at + size].fill(0);
                }
                _ => assert!(client.read(at as u64, size).unwrap() == expected[at..at + size]),
            }
        }
        client.flush().unwrap();
        assert!(client.read(0, LEN).unwrap() == expected, "{engine}{cache}");
        drop(client);
        assert_eq!(daemon.stop(), "");
    }
}

/// A write with FUA is flushed before its reply.
#[test]
fn a_write_with_fua_is_flushed() {
    for engine in ["threads", "sync"] {
        let image = Image::new(1 << 20);
        let path = PathBuf::from(image.socket("nbd.sock"));
        let (nbd, disk) = (path.display().to_string(), format!("{},name=disk", image.disk()));
        let args = ["--nbd", &nbd, "--engine", engine];
        let Some(daemon) = failing_with(&["fdatasync:error=ENOSPC"], &disk, &args) else {
            return;
        };
        let mut client = Client::simple(&path, "disk");
        client.write(0, &pattern(1, BLOCK)).unwrap();
        for command in [WRITE, WRITE_ZEROES, TRIM, FLUSH] {
            if command == WRITE {
                client.start_write(FUA, 0, &[1; BLOCK]);
            } else {
                client.start(command, FUA, 0, BLOCK);
            }
            assert!(
                client.next_reply().result.is_err(),
                "command {command} with --engine {engine}"
            );
        }
        drop(client);
        daemon.stop();
    }
}

/// A write that takes long delays no other request of its client, and no other client.
#[test]
fn c8_a_slow_write_delays_only_itself() {
    let image = Image::new(1 << 20);
    let Some((daemon, path)) = failing(&["pwrite64:delay_enter=1500000"], &image) else {
        return;
    };
    let mut client = Client::structured(&path, "disk");
    let begun = Instant::now();
    let slow = client.start_write(0, 0, &pattern(1, BLOCK));
    for _ in 0..50 {
        let quick = client.start(READ, 0, 8192, BLOCK);
        assert_eq!(client.next_reply().cookie, quick);
        Client::simple(&path, "disk").read(0, BLOCK).unwrap();
    }
    println!("100 reads took {:?} beside a write", begun.elapsed());
    let reply = client.next_reply();
    assert_eq!((reply.cookie, reply.result), (slow, Ok(Vec::new())));
    drop(client);
    daemon.stop();
}

/// After SIGTERM, a request that has begun is completed and answered.
#[test]
fn a_daemon_that_ends_completes_what_it_has_begun() {
    let image = Image::new(1 << 20);
    let Some((daemon, path)) = failing(&["pwrite64:delay_enter=500000"], &image) else {
        return;
    };
    let mut client = Client::structured(&path, "disk");
    let slow = client.start_write(0, 0, &pattern(7, BLOCK));
    // After the reply to this, the write has begun. The incomplete one after it is dropped.
    client.read(8192, BLOCK).unwrap();
    let (_, incomplete) = client.message(WRITE, 0, 65536, BLOCK);
    client
        .stream
        .write_all(&[&incomplete[..], &[0xee; 100]].concat())
        .unwrap();
    let ended = std::thread::spawn(move || daemon.stop());
    let reply = client.next_reply();
    assert_eq!((reply.cookie, reply.result), (slow, Ok(Vec::new())));
    client.is_closed();
    let log = ended.join().unwrap();
    assert!(!log.contains("not completed"), "{log}");
    assert!(!path.exists());
    let bytes = std::fs::read(image.path()).unwrap();
    assert_eq!(bytes[..BLOCK], pattern(7, BLOCK));
    assert_eq!(bytes[65536..65536 + BLOCK], [0; BLOCK]);
}

/// A client that always has outstanding requests does not prevent the daemon from ending.
#[test]
fn a_busy_client_does_not_delay_the_end() {
    let image = Image::new(1 << 20);
    // Flushes wait for each other, so one is always outstanding.
    let faults = ["pwrite64:delay_enter=50000", "fdatasync:delay_enter=70000"];
    let Some((daemon, path)) = failing(&faults, &image) else {
        return;
    };
    let mut client = Client::simple(&path, "disk");
    let mut flushes = HashSet::new();
    for at in 0..3 {
        client.start_write(0, at * 4096, &pattern(at, BLOCK));
        flushes.insert(client.start(FLUSH, 0, 0, 0));
    }
    client.next_reply();
    let ended = std::thread::spawn(move || daemon.stop());
    // The client sends a new request for each reply, until the connection ends.
    let mut reply = [0; 16];
    while client.stream.read_exact(&mut reply).is_ok() {
        let done = u64::from_be_bytes(reply[8..].try_into().unwrap());
        let (cookie, message) = if flushes.remove(&done) {
            client.message(FLUSH, 0, 0, 0)
        } else {
            let (cookie, header) = client.message(WRITE, 0, 0, BLOCK);
            (cookie, [&header[..], &[7; BLOCK]].concat())
        };
        if message.len() < BLOCK {
            flushes.insert(cookie);
        }
        if client.stream.write_all(&message).is_err() {
            break;
        }
    }
    let log = ended.join().unwrap();
    assert!(!log.contains("not completed"), "{log}");
}

/// A client disconnects in order during a write. The write is completed and answered.
#[test]
fn disconnecting_completes_what_was_begun() {
    let image = Image::new(1 << 20);
    let Some((daemon, path)) = failing(&["pwrite64:delay_enter=300000"], &image) else {
        return;
    };
    let mut client = Client::structured(&path, "disk");
    let slow = client.start_write(0, 0, &pattern(7, BLOCK));
    client.start(DISC, 0, 0, 0);
    let reply = client.next_reply();
    assert_eq!((reply.cookie, reply.result), (slow, Ok(Vec::new())));
    client.is_closed();
    // A client that closes its sending side gets its reply as well.
    let stream = UnixStream::connect(&path).unwrap();
    let mut client = Client::begin(stream.try_clone().unwrap()).choose("disk");
    client.start_write(0, 8192, &pattern(9, BLOCK));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.next_reply().result, Ok(Vec::new()));
    client.is_closed();
    // A client that closes the connection without a message causes no harm.
    let mut rude = Client::simple(&path, "disk");
    rude.start_write(0, 4096, &pattern(8, BLOCK));
    drop(rude);
    let mut client = Client::simple(&path, "disk");
    assert_eq!(client.read(0, BLOCK).unwrap(), pattern(7, BLOCK));
    drop(client);
    daemon.stop();
}

/// Writes until the connection ends. Returns the numbers of the last acknowledged write of each block, and of
/// the last one that began.
fn write_until_killed(mut client: Client, first: u64) -> (Vec<u64>, Vec<u64>) {
    const DEPTH: u64 = 8;
    let (mut acknowledged, mut begun) = (vec![0; 32], vec![0; 32]);
    let mut write = first;
    loop {
        let mut sent = std::collections::HashMap::new();
        for _ in 0..DEPTH {
            write += 1;
            let block = write % 32;
            let (cookie, header) = client.message(WRITE, 0, block * BLOCK as u64, BLOCK);
            let message = [&header[..], &pattern(write, BLOCK)].concat();
            begun[block as usize] = write;
            if client.stream.write_all(&message).is_err() {
                return (acknowledged, begun);
            }
            sent.insert(cookie, (block as usize, write));
        }
        for _ in 0..DEPTH {
            let mut reply = [0; 16];
            if client.stream.read_exact(&mut reply).is_err() {
                return (acknowledged, begun);
            }
            let cookie = u64::from_be_bytes(reply[8..].try_into().unwrap());
            let (block, write) = sent[&cookie];
            acknowledged[block] = write;
        }
    }
}

#[test]
fn acknowledged_writes_outlive_a_killed_daemon() {
    let mut random = seed();
    let image = Image::new(1 << 20);
    let path = PathBuf::from(image.socket("nbd.sock"));
    let (nbd, export) = (path.display().to_string(), format!("{},name=disk", image.disk()));
    let mut lasting = vec![0; 32];
    for round in 0..100u64 {
        let engine = ["uring", "threads", "sync"][round as usize % 3];
        let mut child = blockd(&["--nbd", &nbd, "--export", &export, "--engine", engine])
            .spawn()
            .unwrap();
        wait_ready(&mut child);
        // Each block has the contents of the last acknowledged write, or of a later one.
        let mut client = Client::simple(&path, "disk");
        let known: &Vec<u64> = &lasting;
        for (block, write) in known.iter().enumerate().filter(|(_, write)| **write > 0) {
            let found = client.read((block * BLOCK) as u64, BLOCK).unwrap();
            let is_right = (0..4).any(|later| found == pattern(write + later * 32, BLOCK));
            assert!(is_right, "round {round}: block {block} has lost write {write}");
        }
        drop(client);
        let first = (round + 1) * 1_000_000 / 32 * 32;
        let writer = Client::structured(&path, "disk");
        let writer = std::thread::spawn(move || write_until_killed(writer, first));
        // The kill follows a random number of requests of another client.
        let mut other = Client::simple(&path, "disk");
        for _ in 0..random.usize(1..200) {
            other.read(0, 512).unwrap();
        }
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
        let (acknowledged, begun) = writer.join().unwrap();
        for (block, write) in acknowledged.into_iter().enumerate() {
            // The contents of a block without an acknowledged write are unknown if a write has begun.
            lasting[block] = if write == 0 && begun[block] > 0 {
                0
            } else {
                write.max(lasting[block])
            };
        }
    }
    let mut child = blockd(&["--nbd", &nbd, "--export", &export]).spawn().unwrap();
    wait_ready(&mut child);
    terminate(child);
}

/// The lock of an image applies to NBD as well.
#[test]
fn c2_an_image_is_locked() {
    let image = Image::new(1 << 20);
    let (daemon, path) = start(&image.disk(), &[]);
    let (nbd, export) = (image.socket("other.sock"), format!("{},name=x", image.disk()));
    let said = crate::process::complaint(&["--nbd", &nbd, "--export", &export]);
    assert!(said.contains("has it open"), "{said}");
    Client::simple(&path, "disk").flush().unwrap();
    daemon.stop();
}
