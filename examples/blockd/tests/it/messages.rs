//! Every message of the protocol, valid or not, with every wrong length and number of descriptors.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::EventfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::client::{Client, shared};
use crate::daemon::Daemon;
use crate::seed;

/// Message numbers, including some beyond the last one of the protocol.
const NUMBERS: std::ops::Range<u32> = 0..50;
/// Lengths of the body in bytes: nothing, parts of every structure, all of them, more than any, and the most
/// that a message may have.
const LENGTHS: [usize; 15] = [0, 1, 4, 7, 8, 12, 16, 20, 24, 32, 40, 41, 72, 4000, 4096];
/// Numbers of descriptors: none, one, some, the most that the library accepts, more than that, and the most
/// that the system passes on.
const DESCRIPTORS: [usize; 6] = [0, 1, 2, 8, 33, 253];

/// Returns a message that needs no reply.
pub(crate) fn message(code: u32, body: &[u8]) -> Vec<u8> {
    message_with(code, 1, body)
}

fn message_with(code: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    [
        &code.to_ne_bytes()[..],
        &flags.to_ne_bytes(),
        &(body.len() as u32).to_ne_bytes(),
        body,
    ]
    .concat()
}

/// Sends bytes with descriptors. The daemon may have ended the connection, which is allowed.
fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    );
    match sent {
        Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Ends the connection and reads until the daemon has ended it as well. Then all messages have been handled.
fn finish(mut socket: UnixStream) {
    socket.shutdown(std::net::Shutdown::Write).unwrap_or_default();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    let mut answers = [0; 4096];
    loop {
        match socket.read(&mut answers) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the daemon keeps a client that has disconnected: {error}"),
        }
    }
}

/// Negotiates features and protocol features, like a valid client. The replies stay in the socket.
fn negotiate(socket: &UnixStream) {
    let features: u64 = 1 << 32 | 1 << 30;
    let protocol: u64 = 1 | 1 << 3 | 1 << 9 | 1 << 12 | 1 << 15;
    for (code, body) in [
        (3, None),
        (1, None),
        (2, Some(features)),
        (15, None),
        (16, Some(protocol)),
    ] {
        let body = body.map(u64::to_ne_bytes);
        send(
            socket,
            &message(code, body.as_ref().map_or(&[], |body| &body[..])),
            &[],
        );
    }
}

struct Material {
    eventfd: OwnedFd,
    memory: File,
    null: File,
}

impl Material {
    fn new() -> Self {
        Self {
            eventfd: rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
            memory: shared(1 << 16).0,
            null: File::open("/dev/null").unwrap(),
        }
    }

    fn some(&self, count: usize, random: &mut fastrand::Rng) -> Vec<BorrowedFd<'_>> {
        let kinds = [self.eventfd.as_fd(), self.memory.as_fd(), self.null.as_fd()];
        let first = random.usize(..3);
        (0..count).map(|i| kinds[(first + i / 8) % 3]).collect()
    }
}

/// Returns a body of ones, of zeroes, of small numbers, or of random bytes.
fn body(len: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let kind = random.u8(..4);
    (0..len)
        .map(|at| match kind {
            0 => 0,
            1 => 0xff,
            2 if at % 8 == 0 => random.u8(..4),
            2 => 0,
            _ => random.u8(..),
        })
        .collect()
}

/// Each number x length x number of descriptors, before and after the features are negotiated, with and
/// without a request for a reply.
#[test]
fn case_11_every_message_with_every_wrong_length_and_descriptors() {
    let mut random = seed();
    let daemon = Daemon::start("ram=1M", &[]);
    let before = daemon.settled();
    let material = Material::new();
    let mut sent = 0;
    for code in NUMBERS.chain([0x7fff_ffff, u32::MAX]) {
        for len in LENGTHS {
            for count in DESCRIPTORS {
                let socket = UnixStream::connect(daemon.socket()).unwrap();
                if random.bool() {
                    negotiate(&socket);
                }
                let flags = if random.bool() { 1 } else { 1 | 8 };
                let body = body(len, &mut random);
                send(
                    &socket,
                    &message_with(code, flags, &body),
                    &material.some(count, &mut random),
                );
                // The connection is still open, so another message follows.
                send(&socket, &message(1, &[]), &[]);
                finish(socket);
                sent += 1;
            }
        }
        daemon.serves();
        daemon.holds_the_same_as(before);
    }
    println!("{sent} messages");
    daemon.holds_the_same_as(before);
    daemon.is_at_rest();
    let log = daemon.stop();
    assert!(!log.contains("panicked"), "{log}");
}

/// Conversations of many messages, in no order, none of them negotiated, sent as fast as possible.
#[test]
fn case_12_floods_before_anything_is_negotiated() {
    let mut random = seed();
    let daemon = Daemon::start("ram=1M", &[]);
    let before = daemon.settled();
    let material = Material::new();
    let fitting = |code: u32| match code {
        2 | 12..=14 | 16 => 8,
        5 => 40,
        8 | 10 | 11 | 18 => 8,
        9 => 40,
        24 | 25 => 12 + 8,
        37 | 38 => 40,
        _ => 0,
    };
    for _ in 0..300 {
        let socket = UnixStream::connect(daemon.socket()).unwrap();
        for _ in 0..random.usize(1..100) {
            // Most messages have the right length, so that they are processed.
            let code = [
                1, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 36, 37, 38,
            ][random.usize(..19)];
            let count = match code {
                5 | 37 => 1,
                12..=14 => random.usize(..2),
                _ => 0,
            };
            let mut body = body(fitting(code), &mut random);
            if let (12..=14, Some(first)) = (code, body.first_mut()) {
                *first = 0;
            }
            send(&socket, &message(code, &body), &material.some(count, &mut random));
        }
        finish(socket);
    }
    daemon.serves();
    daemon.holds_the_same_as(before);
    daemon.is_at_rest();
    daemon.stop();
}

/// Descriptors that arrive with the wrong bytes: in the middle of the header, with the body, or with nothing
/// after them.
#[test]
fn case_13_descriptors_in_odd_places() {
    let mut random = seed();
    let daemon = Daemon::start("ram=1M", &[]);
    let before = daemon.settled();
    let material = Material::new();
    let whole = message(12, &[0; 8]);
    for split in 1..whole.len() {
        for count in [1, 8, 253] {
            let socket = UnixStream::connect(daemon.socket()).unwrap();
            let (head, tail) = whole.split_at(split);
            send(&socket, head, &[]);
            send(&socket, tail, &material.some(count, &mut random));
            send(&socket, &message(1, &[]), &[]);
            finish(socket);
            // The rest never follows.
            let socket = UnixStream::connect(daemon.socket()).unwrap();
            send(&socket, head, &material.some(count, &mut random));
            finish(socket);
        }
    }
    daemon.serves();
    daemon.holds_the_same_as(before);
    daemon.is_at_rest();
}

/// A client sends more descriptors than a message may have, and then nothing. The daemon does not wait for
/// the rest of a message.
#[test]
fn c20_too_many_descriptors_delay_no_other_client() {
    let mut random = seed();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let exports = ["a", "b"].map(|name| format!("ram=1M,socket={}", at(name).display()));
    let mut child = crate::process::ready(&["--export", &exports[0], "--export", &exports[1]]);
    let material = Material::new();
    let mut client = Client::simple(&at("b"));
    for (whole, count) in [
        (message(3, &[]), 33),
        (message(3, &[]), 253),
        (message(12, &[0; 8]), 253),
    ] {
        let mut socket = UnixStream::connect(at("a")).unwrap();
        send(&socket, &whole, &material.some(count, &mut random));
        client.write(0, 0, &[1; 512]).unwrap();
        assert!(
            matches!(socket.read(&mut [0; 16]), Ok(0) | Err(_)),
            "the connection goes on"
        );
        client.write(0, 0, &[2; 512]).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A message that arrives byte by byte, slower than the daemon checks for it, is handled.
#[test]
fn case_14_a_byte_at_a_time() {
    let daemon = Daemon::start("ram=1M", &[]);
    let mut socket = UnixStream::connect(daemon.socket()).unwrap();
    let wait = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 3_000_000,
    };
    for byte in [message(3, &[]), message(1, &[])].concat() {
        socket.write_all(&[byte]).unwrap();
        rustix::event::poll(&mut [], Some(&wait)).unwrap();
    }
    let mut answer = [0; 20];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], 1u32.to_ne_bytes());
    drop(socket);
    daemon.serves();
    daemon.is_at_rest();
}
