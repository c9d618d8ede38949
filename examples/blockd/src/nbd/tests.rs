//! Connections on a virtual clock.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use aio_context::{ClockId, Context, Wait};

use super::Nbd;
use super::catalog::tests::catalog;

/// A handshake that ends with a choice of the only export, after the flags.
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
    // The other client is served for as long as it likes.
    cx.virtual_clock().warp(Duration::from_secs(1_000_000));
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(nbd.connections(), 1);
    chosen.write_all(&[0x25, 0x60]).unwrap();
    cx.poll(Wait::NoBlock).unwrap();
    drop(chosen);
    cx.poll(Wait::NoBlock).unwrap();
    assert_eq!(nbd.connections(), 0);
}
