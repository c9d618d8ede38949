//! Connections on a virtual clock.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use aio_context::{ClockId, Context, Wait};

use super::Nbd;
use super::catalog::Catalog;
use super::catalog::tests::{catalog, export};
use super::wire::{REQUEST_MAGIC, command};
use crate::Engine;
use crate::disk::Source;
use crate::engine::Workers;

/// The handshake after the flags, with a choice of the only export.
const CHOICE: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0";

#[test]
fn a_handshake_has_a_time_limit_and_requests_have_none() {
    let cx = Context::new().unwrap();
    let nbd = Nbd::with_clock(&cx, Rc::new(catalog(&["a"])), ClockId::Virtual);
    let connect = |message: &[u8]| {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        nbd.accept(&cx, server.into());
        client.write_all(message).unwrap();
        cx.poll(Wait::NoBlock).unwrap();
        client
    };
    let mut slow = connect(&CHOICE[..20]);
    let mut chosen = connect(CHOICE);
    assert_eq!(nbd.connections(), 2);
    cx.virtual_clock().warp(Duration::from_secs(9));
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(nbd.connections(), 2);
    cx.virtual_clock().warp(Duration::from_secs(2));
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(nbd.connections(), 1, "a handshake has no time limit");
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 18);
    // The other client is served without a limit of time.
    cx.virtual_clock().warp(Duration::from_secs(1_000_000));
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(nbd.connections(), 1);
    chosen.write_all(&[0x25, 0x60]).unwrap();
    cx.poll(Wait::NoBlock).unwrap();
    drop(chosen);
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(nbd.connections(), 0);
}

/// An image whose threads hang until `release` is dropped.
struct Hanging {
    cx: Context,
    nbd: Rc<Nbd>,
    workers: Rc<Workers>,
    image: tempfile::NamedTempFile,
    release: Option<mpsc::SyncSender<()>>,
}

/// The number of threads, and the most requests of a connection that are begun.
const THREADS: usize = 16;
const MOST_BEGUN: usize = 64;
/// The bytes of the opening, and of the replies to the choice.
const HANDSHAKE: usize = 18 + 20 + 12 + 20;

impl Hanging {
    fn new() -> Self {
        let cx = Context::new().unwrap();
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(1 << 20).unwrap();
        let source = Source::File(image.path().to_owned());
        let workers = Engine::Threads.workers(&cx, &source).unwrap();
        let (release, hang) = mpsc::sync_channel::<()>(0);
        let hang = std::sync::Arc::new(std::sync::Mutex::new(hang));
        for _ in 0..THREADS {
            let hang = hang.clone();
            workers
                .pool
                .run(move || hang.lock().unwrap().recv().is_ok(), |_, _| ())
                .unwrap();
        }
        let mut disk = export("a", &source, false);
        disk.workers = Some(workers.clone());
        let catalog = Rc::new(Catalog::default());
        catalog.add(disk);
        let nbd = Nbd::with_clock(&cx, catalog, ClockId::Monotonic);
        Self {
            cx,
            nbd,
            workers,
            image,
            release: Some(release),
        }
    }

    /// Connects a client that sends these requests after its handshake, and handles them as far as possible.
    fn client(&self, requests: &[u8]) -> UnixStream {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        self.nbd.accept(&self.cx, server.into());
        client.write_all(&[CHOICE, requests].concat()).unwrap();
        self.settle();
        // Unread data at the client's end would be an error of the connection, which cancels its requests.
        client.read_exact(&mut [0; HANDSHAKE]).unwrap();
        client
    }

    /// Polls until there is no more work.
    fn settle(&self) {
        while self.cx.poll(Wait::NoBlock).unwrap() {}
    }

    /// Returns the number of requests that were begun.
    fn begun(&self) -> usize {
        self.workers.pool.in_flight() - THREADS
    }

    /// Lets the threads continue. Returns the contents of the image once there is no more work.
    fn release(&mut self) -> Vec<u8> {
        drop(self.release.take());
        // The end of a request can begin others.
        while self.workers.pool.in_flight() > 0 {
            self.cx.poll(Wait::Block).unwrap();
            self.settle();
        }
        std::fs::read(self.image.path()).unwrap()
    }
}

fn request(kind: u16, at: u64, len: u32) -> Vec<u8> {
    [
        &REQUEST_MAGIC.to_be_bytes()[..],
        &[0, 0],
        &kind.to_be_bytes(),
        &[0; 8],
        &at.to_be_bytes(),
        &len.to_be_bytes(),
    ]
    .concat()
}

/// A write of 512 equal bytes.
fn write(at: u64, byte: u8) -> Vec<u8> {
    [request(command::WRITE, at, 512), vec![byte; 512]].concat()
}

/// While an image hangs, clients that connect and disconnect must not make the daemon keep the data of more
/// and more requests.
#[test]
fn the_place_of_a_client_is_free_when_threads_have_ended_its_requests() {
    let mut hanging = Hanging::new();
    drop(hanging.client(&write(0, 7)));
    drop(hanging.client(&[]));
    while hanging.nbd.connections() > 1 {
        hanging.cx.poll(Wait::Block).unwrap();
    }
    hanging.nbd.close();
    assert_eq!(
        (hanging.nbd.connections(), hanging.nbd.places.taken()),
        (0, 1),
        "a hanging request has no place"
    );
    hanging.release();
    assert_eq!(hanging.nbd.places.taken(), 0);
}

/// A client whose connection breaks connects again and repeats the unanswered requests. Writes of the former
/// connection that the image has not completed by then must not replace newer data.
#[test]
fn c6_no_write_of_a_client_that_has_left_replaces_one_of_the_next() {
    for by in ["the end of the connection", "an error of the connection"] {
        let mut hanging = Hanging::new();
        let former = hanging.client(&write(0, 1));
        assert_eq!(hanging.begun(), 1);
        drop(former);
        if by == "an error of the connection" {
            let connections = hanging.nbd.all();
            connections.iter().for_each(|connection| connection.close());
            hanging.nbd.connections.take();
        }
        let mut next = hanging.client(&[write(0, 2), write(4096, 3)].concat());
        assert_eq!(
            hanging.begun(),
            1,
            "after {by}: a request of the next client has begun"
        );
        let contents = hanging.release();
        assert_eq!((contents[0], contents[4096]), (2, 3), "after {by}");
        // The replies to both writes are the only unread data.
        next.read_exact(&mut [0; 2 * 16]).unwrap();
    }
}

/// When the client disconnects, [`MOST_BEGUN`] requests are begun. The others, and after them the end of the
/// connection, are in its buffers.
#[test]
fn c6_no_request_of_a_client_that_has_left_begins_after_the_next_has_come() {
    let mut hanging = Hanging::new();
    let requests: Vec<u8> = (0..MOST_BEGUN + 10)
        .flat_map(|at| write(at as u64 * 512, 1))
        .collect();
    let former = hanging.client(&requests);
    // It still accepts replies, because a reply that fails would end the connection.
    former.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hanging.begun(), MOST_BEGUN);
    let next = hanging.client(&write(0, 2));
    let contents = hanging.release();
    assert_eq!(contents[0], 2);
    let late = &contents[MOST_BEGUN * 512..];
    assert!(late.iter().all(|byte| *byte == 0), "a request has begun late");
    drop((former, next));
}

/// A client with several connections repeats the requests of a broken one on the others.
#[test]
fn c6_a_write_waits_for_one_of_another_connection_that_it_overlaps() {
    for (kind, data) in [
        (command::WRITE, 512),
        (command::WRITE_ZEROES, 0),
        (command::TRIM, 0),
    ] {
        let mut hanging = Hanging::new();
        let mut clients = vec![hanging.client(&[]), hanging.client(&[])];
        clients[0].write_all(&write(512, 1)).unwrap();
        hanging.settle();
        assert_eq!(hanging.begun(), 1);
        // These requests do not overlap it, or do not write.
        let mut message = [write(0, 2), write(1024, 2), request(command::READ, 512, 512)].concat();
        message.extend_from_slice(&request(command::FLUSH, 0, 0));
        clients[1].write_all(&message).unwrap();
        hanging.settle();
        assert_eq!(hanging.begun(), 5);
        let overlapping = [request(kind, 513, 512), vec![3; data]].concat();
        clients[1].write_all(&overlapping).unwrap();
        hanging.settle();
        assert_eq!(hanging.begun(), 5, "{kind}: an overlapping write has begun");
        // It does not begin at the end of the first connection either.
        drop(clients.remove(0));
        hanging.settle();
        assert_eq!(hanging.begun(), 5, "{kind}: an overlapping write has begun");
        let contents = hanging.release();
        let last = if data > 0 { 3 } else { 0 };
        assert_eq!(
            (contents[0], contents[512], contents[600]),
            (2, 1, last),
            "{kind}"
        );
    }
}
