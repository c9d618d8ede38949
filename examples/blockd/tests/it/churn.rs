//! Many clients in succession: a leak of one would add up.

use std::io::Write;
use std::os::unix::net::UnixStream;

use crate::client::Client;
use crate::daemon::{Daemon, Holds};
use crate::messages::message;
use crate::raw::Raw;
use crate::seed;

/// How many clients: a thousand, unless the variable `BLOCKD_CLIENTS` says more; `cargo xtask prove` has 10,000.
pub(crate) fn clients() -> u64 {
    std::env::var("BLOCKD_CLIENTS").map_or(1000, |count| count.parse().unwrap())
}

/// A line about what clients have left, for `cargo xtask prove`.
pub(crate) fn report(protocol: &str, count: u64, before: Holds, after: Holds) {
    println!(
        "clients: {protocol}: {count} clients, descriptors {} and {}, memory {} and {} KiB",
        before.descriptors, after.descriptors, before.rss_kib, after.rss_kib
    );
}

/// A thousand clients that share memory, run a queue and leave in every way: descriptors, mappings and memory stay the same.
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
    // What is only made once is there after some.
    for round in 0..50 {
        visit(round, &mut random);
    }
    let before = daemon.settled();
    let count = clients();
    for round in 0..count {
        visit(round, &mut random);
    }
    daemon.serves();
    daemon.holds_the_same_as(before);
    let after = daemon.holds();
    println!("{before:?} before, {after:?} after");
    report("vhost-user", count, before, after);
    assert!(
        after.rss_kib <= before.rss_kib + 1024,
        "{before:?} has become {after:?}: memory is kept"
    );
    daemon.is_at_rest();
    daemon.stop();
}

/// Clients that connect while another one is served wait in the backlog, whatever they send meanwhile. They hold no
/// descriptor of the daemon, and nothing of them is left after they disconnect.
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
