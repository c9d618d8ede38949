//! Clients that break the rules, or do not read the replies to their requests.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::client::{Client, DISC, READ, WRITE};
use super::start;
use crate::churn;
use crate::client::pattern;
use crate::images::Image;
use crate::seed;

/// Checks that another client is served.
fn is_served(path: &Path) {
    let mut client = Client::structured(path, "disk");
    client.write(0, &pattern(1, 4096)).unwrap();
    assert_eq!(client.read(0, 4096).unwrap(), pattern(1, 4096));
}

#[test]
fn malformed_messages_end_their_connection_only() {
    let (daemon, path) = start("ram=1M", &[]);
    let mut bystander = Client::simple(&path, "disk");
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4],
        &[0, 0, 0, 3, b'x', 0, 0, 0, 0, 0, 0, 0],
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        // The read returns the first bytes of the handshake, and then the end, or a reset if the daemon has
        // not read all bytes.
        match std::io::Read::read_to_end(&mut stream, &mut rest) {
            Ok(_) => assert!(rest.starts_with(b"NBDMAGIC")),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    let mut client = Client::simple(&path, "disk");
    client.stream.write_all(&[0x25, 0x60, 0x95, 0x14]).unwrap();
    client.is_closed();
    // The option without an error reply names an export that does not exist.
    let mut client = Client::unix(&path);
    client.stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x01x").unwrap();
    client.is_closed();
    // The option is too long.
    let mut client = Client::unix(&path);
    client.stream.write_all(b"IHAVEOPT\0\0\0\x07\x7f\0\0\0").unwrap();
    client.is_closed();
    bystander.write(0, &[1; 512]).unwrap();
    is_served(&path);
    let log = daemon.stop();
    assert!(log.contains("begins with 0x25609514"), "{log}");
    assert!(log.contains("there is no export"), "{log}");
    assert!(log.contains("does not speak NBD"), "{log}");
}

#[test]
fn clients_that_leave_in_the_middle() {
    let image = Image::new(1 << 20);
    for (disk, engine) in [("ram=1M".to_owned(), "auto"), (image.disk(), "threads")] {
        let (daemon, path) = start(&disk, &["--engine", engine]);
        for cut in [0, 1, 27, 28, 1000, 40_000] {
            let mut client = Client::simple(&path, "disk");
            let (_, header) = client.message(WRITE, 0, 512, 50_000);
            let message = [&header[..], &[0xee; 50_000]].concat();
            client.stream.write_all(&message[..cut]).unwrap();
            drop(client);
        }
        // The client does not read the reply to a request.
        let mut client = Client::simple(&path, "disk");
        client.start(READ, 0, 0, 1 << 20);
        drop(client);
        // A client that disconnects in order gets the replies to the requests that it has sent before.
        let mut client = Client::simple(&path, "disk");
        for at in 0..8 {
            client.start_write(0, at * 4096, &pattern(at, 4096));
        }
        client.start(DISC, 0, 0, 0);
        let mut cookies: Vec<u64> = (0..8)
            .map(|_| client.next_reply())
            .map(|reply| reply.cookie)
            .collect();
        cookies.sort_unstable();
        assert_eq!(cookies, (1..=8).collect::<Vec<u64>>());
        client.is_closed();
        let mut client = Client::simple(&path, "disk");
        for at in 0..8 {
            assert_eq!(client.read(at * 4096, 4096).unwrap(), pattern(at, 4096));
        }
        is_served(&path);
        drop(client);
        daemon.stop();
    }
}

/// A client that closes its sending side gets its replies.
#[test]
fn half_closed_connections_are_completed() {
    let (_daemon, path) = start("ram=4M", &[]);
    let stream = UnixStream::connect(&path).unwrap();
    let mut client = Client::begin(stream.try_clone().unwrap()).choose("disk");
    client.start_write(0, 0, &pattern(5, 3 << 20));
    client.start(READ, 0, 0, 3 << 20);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.next_reply().result, Ok(Vec::new()));
    assert!(client.next_reply().result.unwrap() == pattern(5, 3 << 20));
    client.is_closed();
}

/// Replies to thousands of reads are not read. The memory of the daemon does not grow, and no other client
/// waits.
#[test]
fn a_client_that_does_not_read_its_replies_is_not_read() {
    const LEN: usize = 1 << 20;
    let image = Image::new(64 << 20);
    for (disk, engine, most_mib) in [("ram=64M".to_owned(), "auto", 16), (image.disk(), "threads", 64)] {
        let (daemon, path) = start(&disk, &["--engine", engine]);
        is_served(&path);
        let before = daemon.holds().rss_kib;
        let stream = UnixStream::connect(&path).unwrap();
        let mut client = Client::begin(stream.try_clone().unwrap()).choose("disk");
        stream.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let mut full = 0;
        // The daemon may read more after a while, so the socket must be full for many rounds.
        while full < 200 {
            let (_, message) = client.message(READ, 0, (sent % 64 * LEN) as u64, LEN);
            match (&stream).write(&message) {
                Ok(count) => {
                    assert_eq!(count, message.len());
                    sent += 1;
                    full = 0;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    full += 1;
                    is_served(&path);
                }
            }
        }
        let after = daemon.holds().rss_kib;
        println!("{sent} requests of {LEN} bytes: {before} KiB have become {after}");
        // The RAM disk's pages were never written, so they take no memory.
        assert!(
            after < before + most_mib * 1024,
            "{before} KiB have become {after}"
        );
        stream.set_nonblocking(false).unwrap();
        for _ in 0..sent {
            assert_eq!(client.next_reply().result.unwrap().len(), LEN);
        }
        drop((client, stream));
        daemon.stop();
    }
}

/// The number of connections is limited. A further client waits until another one has disconnected.
#[test]
fn the_number_of_connections_is_limited() {
    let (daemon, path) = start("ram=1M", &[]);
    let mut clients: Vec<Client> = (0..64).map(|_| Client::simple(&path, "disk")).collect();
    let waiting = UnixStream::connect(&path).unwrap();
    for client in &mut clients {
        client.read(0, 512).unwrap();
    }
    waiting.set_nonblocking(true).unwrap();
    let early = std::io::Read::read(&mut &waiting, &mut [0]).map_err(|error| error.kind());
    assert_eq!(
        early,
        Err(ErrorKind::WouldBlock),
        "a client beyond the limit is served"
    );
    waiting.set_nonblocking(false).unwrap();
    clients.pop();
    let mut client = Client::begin(waiting).choose("disk");
    client.write(0, &[1; 512]).unwrap();
    drop((clients, client));
    is_served(&path);
    let log = daemon.stop();
    assert!(
        log.contains("64 clients are connected, which is the limit"),
        "{log}"
    );
}

/// A thousand clients disconnect in every way. The descriptors and the memory stay the same, and there are
/// few log lines.
#[test]
fn a_thousand_clients_leave_nothing_behind() {
    let mut random = seed();
    let (daemon, path) = start("ram=1M", &[]);
    let visit = |random: &mut fastrand::Rng| match random.u8(..5) {
        0 => drop(UnixStream::connect(&path).unwrap()),
        1 => {
            let mut stream = UnixStream::connect(&path).unwrap();
            let noise: Vec<u8> = (0..random.usize(1..100)).map(|_| random.u8(..)).collect();
            // The daemon may have closed the connection.
            stream.write_all(&noise).unwrap_or_default();
        }
        2 => drop(Client::unix(&path)),
        3 => {
            let mut client = Client::structured(&path, "disk");
            client.start(READ, 0, 0, 1 << 20);
        }
        _ => is_served(&path),
    };
    churn::leave_nothing(&daemon, "NBD", 2048, |_| visit(&mut random));
    is_served(&path);
    daemon.is_at_rest();
    let log = daemon.stop();
    assert!(log.lines().count() < 50, "{log}");
    assert!(
        !log.contains("Broken pipe"),
        "leaving early is no violation: {log}"
    );
}
