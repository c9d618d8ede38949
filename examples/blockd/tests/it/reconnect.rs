//! Clients that connect, disconnect and connect again.

use std::os::unix::net::UnixStream;

use blockd::Source;

use crate::client::{Client, EVERY_WAY, pattern};
use crate::server::{Server, Wanted};

#[test]
fn a_client_comes_back_and_finds_its_data() {
    let server = Wanted::new().export(Source::Ram(1 << 20), 2).start();
    for round in 0..20 {
        let (indexes, waits) = EVERY_WAY[round % 4];
        let mut client = Client::connect(&server.socket(0), 2, indexes, waits);
        if round > 0 {
            assert_eq!(
                client.read(0, 4096, 4096).unwrap(),
                pattern(round as u64 - 1, 4096)
            );
        }
        client.write(1, 4096, &pattern(round as u64, 4096)).unwrap();
    }
}

/// The client disconnects between its kick and the daemon's work, or during that work. In both cases the next
/// client is served.
#[test]
fn a_client_vanishes_with_requests_under_way() {
    let (server, mut bystander) = Server::with_bystander();
    for round in 0..50 {
        let (indexes, waits) = EVERY_WAY[round % 4];
        let mut client = Client::connect(&server.socket(0), 1, indexes, waits);
        for slot in 0..1 + round % 16 {
            client.start_read(0, slot, 0, 4096);
        }
        drop(client);
        bystander.is_served();
    }
    let mut client = Client::simple(&server.socket(0));
    client.write(0, 0, &pattern(2, 512)).unwrap();
    assert_eq!(client.read(0, 0, 512).unwrap(), pattern(2, 512));
}

#[test]
fn a_second_client_waits_for_its_turn() {
    let server = Server::simple();
    let mut first = Client::simple(&server.socket(0));
    let socket = server.socket(0);
    let second = std::thread::spawn(move || {
        let mut client = Client::simple(&socket);
        client.read(0, 0, 512).unwrap()
    });
    for seed in 0..100 {
        first.write(0, 0, &pattern(seed, 512)).unwrap();
        assert_eq!(first.read(0, 0, 512).unwrap(), pattern(seed, 512));
    }
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.join().unwrap(), pattern(99, 512));
}

#[test]
fn silent_connections_do_no_harm() {
    let server = Server::simple();
    for _ in 0..50 {
        drop(UnixStream::connect(server.socket(0)).unwrap());
    }
    let mut client = Client::simple(&server.socket(0));
    client.write(0, 0, &pattern(3, 512)).unwrap();
    assert_eq!(client.read(0, 0, 512).unwrap(), pattern(3, 512));
}
