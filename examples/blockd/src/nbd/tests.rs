//! Connections on a virtual clock.

use std::io::{Read, Write};
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

/// While an image hangs, clients that connect and disconnect must not make the daemon keep the data of more
/// and more requests.
#[test]
fn the_place_of_a_client_is_free_when_threads_have_ended_its_requests() {
    let cx = Context::new().unwrap();
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(4096).unwrap();
    let source = Source::File(image.path().to_owned());
    let workers = Engine::Threads.workers(&cx, &source).unwrap();
    // All threads hang.
    let (release, hang) = mpsc::sync_channel::<()>(0);
    let hang = std::sync::Arc::new(std::sync::Mutex::new(hang));
    for _ in 0..16 {
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
    let (mut client, server) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    nbd.accept(&cx, server.into());
    let write = [
        &REQUEST_MAGIC.to_be_bytes()[..],
        &[0, 0],
        &command::WRITE.to_be_bytes(),
        &[0; 16],
        &512u32.to_be_bytes(),
        &[7; 512],
    ];
    client.write_all(&[CHOICE, &write.concat()].concat()).unwrap();
    while nbd.in_flight() == 0 {
        cx.poll(Wait::Block).unwrap();
    }
    // The client has disconnected.
    drop(client);
    let (mut other, server) = UnixStream::pair().unwrap();
    server.set_nonblocking(true).unwrap();
    nbd.accept(&cx, server.into());
    other.write_all(CHOICE).unwrap();
    cx.poll(Wait::NoBlock).unwrap();
    drop(other);
    while nbd.connections() > 1 {
        cx.poll(Wait::Block).unwrap();
    }
    nbd.close();
    assert_eq!(
        (nbd.connections(), nbd.places.taken()),
        (0, 1),
        "a hanging request has no place"
    );
    drop(release);
    while workers.pool.in_flight() > 0 {
        cx.poll(Wait::Block).unwrap();
    }
    assert_eq!(nbd.places.taken(), 0);
}
