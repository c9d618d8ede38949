//! Many clients in succession. A leak by each client would add up.

use std::io::Write;
use std::os::unix::net::UnixStream;

use crate::client::Client;
use crate::daemon::Daemon;
use crate::messages::message;
use crate::raw::Raw;
use crate::seed;

/// Returns the number of clients: a thousand, unless the variable `BLOCKD_CLIENTS` sets another; `cargo xtask
/// prove` sets 10,000.
fn clients() -> u64 {
    std::env::var("BLOCKD_CLIENTS").map_or(1000, |count| count.parse().unwrap())
}

/// Lets clients connect and disconnect through `visit`, which gets the number of the client. Fails if the
/// daemon keeps a descriptor or memory. Leaked memory would add up in each batch of clients, so a batch that
/// has kept more than `most_kib` is repeated. Free buffers in the allocator's heap do not repeat: the
/// allocator does not return them to the system while a buffer behind them is in use. Prints a line for
/// `cargo xtask prove`.
pub(crate) fn leave_nothing(daemon: &Daemon, protocol: &str, most_kib: usize, mut visit: impl FnMut(u64)) {
    const BATCHES: usize = 3;
    // These clients make the daemon create everything that it creates only once.
    (0..100).for_each(&mut visit);
    let count = clients();
    let mut kept = Vec::new();
    for _ in 0..BATCHES {
        let before = daemon.settled();
        (0..count).for_each(&mut visit);
        daemon.serves();
        daemon.holds_the_same_as(before);
        let after = daemon.holds();
        println!(
            "clients: {protocol}: {count} clients, descriptors {} and {}, memory {} and {} KiB",
            before.descriptors, after.descriptors, before.rss_kib, after.rss_kib
        );
        if after.rss_kib <= before.rss_kib + most_kib {
            return;
        }
        kept.push(after.rss_kib - before.rss_kib);
    }
    panic!("memory is kept after each {count} clients: {kept:?} KiB, and {most_kib} are allowed");
}

/// A thousand clients share memory, run a queue and disconnect in every way. The descriptors, mappings and
/// memory stay the same.
#[test]
fn case_09_a_thousand_clients_leave_nothing_behind() {
    let mut random = seed();
    let daemon = Daemon::start("ram=1M", &[]);
    let visit = |round: u64, random: &mut fastrand::Rng| match random.u8(..6) {
        0 => drop(UnixStream::connect(daemon.socket()).unwrap()),
        1 => {
            let mut socket = UnixStream::connect(daemon.socket()).unwrap();
            // The daemon may have closed the connection.
            socket
                .write_all(&message(1, &[])[..random.usize(..12)])
                .unwrap_or_default();
        }
        2 => drop(Raw::connect(daemon.socket())),
        3 => {
            let mut raw = Raw::ready(daemon.socket());
            raw.read_sector(round % 100);
        }
        4 => {
            let mut raw = Raw::ready(daemon.socket());
            raw.offer(99);
        }
        _ => {
            let mut client = Client::simple(daemon.socket());
            client.read(0, 0, 4096).unwrap();
        }
    };
    leave_nothing(&daemon, "vhost-user", 1024, |round| visit(round, &mut random));
    daemon.is_at_rest();
    daemon.stop();
}

/// Clients that connect while another one is served wait in the backlog, even if they send data meanwhile.
/// They hold no descriptor of the daemon, and after they disconnect the daemon keeps nothing of them.
#[test]
fn case_10_a_queue_of_clients_waits_in_line() {
    let daemon = Daemon::start("ram=1M", &[]);
    let before = daemon.settled();
    let mut first = Raw::ready(daemon.socket());
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut socket = UnixStream::connect(daemon.socket()).unwrap();
        socket.write_all(&message(1, &[]).repeat(50)).unwrap();
        waiting.push(socket);
    }
    for sector in 0..50 {
        first.read_sector(sector);
    }
    let during = daemon.holds();
    assert!(
        during.fixed_descriptors() < before.fixed_descriptors() + 10,
        "waiting clients hold descriptors: {during:?}"
    );
    drop(first);
    drop(waiting);
    daemon.serves();
    daemon.holds_the_same_as(before);
    daemon.is_at_rest();
}
