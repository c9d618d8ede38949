//! An arbitrary NBD client. After it, the server must serve a valid client.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use aio_context::{Context, Wait};

use crate::disk::{Disk, Source};
use crate::limit::LineLimit;
use crate::nbd::{Nbd, NbdExport};
use crate::request::Device;

/// The most iterations of a conversation.
const MOST_ITERATIONS: usize = 10_000;

thread_local! {
    static SCENE: Scene = Scene::new();
}

/// A server with a RAM disk and a read-only null disk.
struct Scene {
    context: Context,
    nbd: Rc<Nbd>,
}

impl Scene {
    fn new() -> Self {
        let context = Context::new().expect("an event loop");
        let nbd = Nbd::new(&context);
        for (name, source, read_only) in [
            ("a", Source::Ram(1 << 20), false),
            ("b", Source::Null(1 << 16), true),
        ] {
            let disk = Disk::open(&source, read_only).expect("a disk");
            nbd.catalog().add(NbdExport {
                name: name.to_owned(),
                device: Arc::new(Device::new(disk, "")),
                workers: None,
                limit: LineLimit::new(name.into(), None),
                stats: Rc::default(),
                writes: Rc::default(),
            });
        }
        Self { context, nbd }
    }

    fn connect(&self) -> UnixStream {
        let (client, server) = UnixStream::pair().expect("a socket");
        for socket in [&client, &server] {
            socket.set_nonblocking(true).expect("a non-blocking socket");
        }
        self.nbd.accept(&self.context, server.into());
        client
    }

    fn turn(&self) {
        self.context.poll(Wait::NoBlock).expect("an iteration");
    }

    /// Sends all bytes, and reads the replies meanwhile. Returns `false` if the server has ended the
    /// connection.
    fn send(&self, mut client: &UnixStream, mut bytes: &[u8]) -> bool {
        for _ in 0..MOST_ITERATIONS {
            if bytes.is_empty() {
                return true;
            }
            match client.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
            self.turn();
            received(client);
        }
        panic!("the server does not read");
    }

    /// Checks that a valid client is served.
    fn serves(&self) {
        let client = self.connect();
        received(&client);
        let data = [0xa5; 512];
        let write = [&request(1, 0, 512)[..], &data].concat();
        let all = [
            &choose(b"a", false)[..],
            &write,
            &request(0, 0, 512),
            &request(2, 0, 0),
        ]
        .concat();
        assert!((&client).write(&all).is_ok_and(|count| count == all.len()));
        let mut replies = Vec::new();
        for _ in 0..MOST_ITERATIONS {
            self.turn();
            replies.extend(received(&client));
            if self.nbd.connections() == 0 {
                break;
            }
        }
        assert!(replies.ends_with(&data), "an honest client is not served");
    }
}

/// Returns the bytes that have arrived.
fn received(mut client: &UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut some = [0; 65536];
    while let Ok(count) = client.read(&mut some) {
        if count == 0 {
            break;
        }
        all.extend(&some[..count]);
    }
    all
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u32).to_be_bytes();
    [&b"IHAVEOPT"[..], &number.to_be_bytes(), &len, data].concat()
}

/// Returns a handshake that chooses an export, optionally with structured replies and block status.
fn choose(name: &[u8], structured: bool) -> Vec<u8> {
    let len = (name.len() as u32).to_be_bytes();
    let mut all = vec![0, 0, 0, 3];
    if structured {
        all.extend(option(8, &[]));
        let context = b"base:allocation";
        let query = [&len[..], name, &[0, 0, 0, 1], &[0, 0, 0, 15], context].concat();
        all.extend(option(10, &query));
    }
    all.extend(option(7, &[&len[..], name, &[0, 0]].concat()));
    all
}

fn request(command: u16, at: u64, len: u32) -> Vec<u8> {
    [
        &0x2560_9513u32.to_be_bytes()[..],
        &[0, 0],
        &command.to_be_bytes(),
        &[7; 8],
        &at.to_be_bytes(),
        &len.to_be_bytes(),
    ]
    .concat()
}

/// Sends the bytes of a client to a server, and checks that it ends the connection and serves the next client.
///
/// The first byte encodes the handshake before the other bytes, and the length of the pieces that are sent.
///
/// # Panics
/// If the server does not end the connection or does not serve the next client.
pub fn nbd(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    SCENE.with(|scene| {
        let client = scene.connect();
        let before = match how & 3 {
            0 => Vec::new(),
            1 => choose(b"a", false),
            2 => choose(b"a", true),
            _ => choose(b"b", true),
        };
        let piece = 1 << (how >> 4);
        let is_open =
            scene.send(&client, &before) && data.chunks(piece).all(|piece| scene.send(&client, piece));
        // It may be closed already.
        let half = if how & 4 == 0 {
            Shutdown::Write
        } else {
            Shutdown::Both
        };
        client.shutdown(half).unwrap_or_default();
        let mut iterations = 0;
        while scene.nbd.connections() > 0 {
            scene.turn();
            received(&client);
            iterations += 1;
            assert!(
                iterations < MOST_ITERATIONS,
                "the connection does not end (open: {is_open})"
            );
        }
        scene.serves();
    });
}
