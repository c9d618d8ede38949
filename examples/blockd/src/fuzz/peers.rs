//! The common part of the targets of the control socket and of the metrics: a client that sends bytes in
//! pieces and reads all answers.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use aio_context::{Context, Wait};

/// The most iterations of a conversation.
const MOST_ITERATIONS: usize = 100_000;

/// Sends all bytes in pieces of this length, ends its sending side, and returns all bytes that the server
/// sends before it ends the connection.
///
/// # Panics
/// If the server does not end the connection.
pub(super) fn converse(cx: &Context, mut client: UnixStream, bytes: &[u8], piece: usize) -> Vec<u8> {
    client.set_nonblocking(true).expect("a socket");
    let mut pieces = bytes.chunks(piece.max(1)).peekable();
    let mut rest = pieces.next().unwrap_or_default();
    let mut received = Vec::new();
    let mut part = vec![0; 1 << 16];
    let mut has_ended = false;
    for _ in 0..MOST_ITERATIONS {
        while !rest.is_empty() {
            match client.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The server has ended the connection. The bytes that it has sent before can still be read.
                Err(_) => (rest, pieces) = (&[], [].chunks(1).peekable()),
            }
        }
        if rest.is_empty() {
            match pieces.next() {
                Some(next) => rest = next,
                None if !has_ended => {
                    has_ended = true;
                    // It may be closed already.
                    client.shutdown(Shutdown::Write).unwrap_or_default();
                }
                None => {}
            }
        }
        // While there are more bytes to send, the client does not wait for the server.
        let wait = if has_ended {
            Wait::AtMost(Duration::from_millis(1))
        } else {
            Wait::NoBlock
        };
        cx.poll(wait).expect("an iteration");
        loop {
            match client.read(&mut part) {
                Ok(0) => return received,
                Ok(count) => received.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The server has closed the connection with unread bytes.
                Err(_) => return received,
            }
        }
    }
    panic!("the server does not end the connection");
}
