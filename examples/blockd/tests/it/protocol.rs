//! The vhost-user side: set-up in unusual orders, messages in pieces, and invalid messages.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use crate::client::{Client, STALLED, eventfd, is_signalled, pattern, readable};
use crate::messages::message;
use crate::raw::Raw;
use crate::server::Server;

/// Waits until the daemon has ended this connection. Returns the time that this took.
fn wait_closed(mut socket: &UnixStream) -> Duration {
    let start = Instant::now();
    loop {
        assert!(
            readable(socket, Duration::from_secs(10)),
            "the connection goes on"
        );
        match socket.read(&mut [0; 4096]) {
            Ok(0) => return start.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return start.elapsed(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_queue_stops_and_goes_on_where_it_was() {
    let server = Server::simple();
    let mut raw = Raw::ready(&server.socket(0));
    for _ in 0..3 {
        raw.read_sector(1);
    }
    assert_eq!(raw.frontend.get_vring_base(0).unwrap(), 3);
    // The queue has stopped, so an offered request is not taken.
    raw.offer(0);
    raw.frontend.get_config_of(60);
    assert_eq!(raw.used(), 3);
    // The queue continues, and finds the request that was offered meanwhile without another kick.
    raw.kick.read().unwrap();
    raw.set_up(3);
    raw.wait_used(4);
    raw.read_sector(1);
}

#[test]
fn a_disabled_queue_rests() {
    let server = Server::simple();
    let mut raw = Raw::connect(&server.socket(0));
    raw.set_up(0);
    raw.describe(0, 0, 0, 0, 0);
    raw.header(4, 0);
    raw.describe(0, crate::raw::HEADER, 16, crate::raw::NEXT, 1);
    raw.describe(1, crate::raw::STATUS, 1, crate::raw::WRITE, 0);
    raw.offer(0);
    raw.frontend.get_config_of(60);
    assert_eq!(raw.used(), 0, "served before it was enabled");
    raw.frontend.set_vring_enable(0, true).unwrap();
    raw.wait_used(1);
    raw.frontend.set_vring_enable(0, false).unwrap();
    raw.offer(0);
    raw.frontend.get_config_of(60);
    assert_eq!(raw.used(), 1, "served while it was disabled");
    raw.frontend.set_vring_enable(0, true).unwrap();
    raw.wait_used(2);
}

#[test]
fn memory_may_change_while_a_queue_runs() {
    let server = Server::simple();
    let mut raw = Raw::ready(&server.socket(0));
    for _ in 0..10 {
        raw.read_sector(0);
        raw.frontend.set_mem_table(&[raw.region()]).unwrap();
    }
    raw.read_sector(0);
}

#[test]
fn another_call_descriptor_takes_over() {
    let server = Server::simple();
    let mut raw = Raw::ready(&server.socket(0));
    raw.read_sector(0);
    assert!(is_signalled(&raw.call, Duration::from_secs(10)));
    let other = eventfd(EFD_NONBLOCK);
    raw.frontend.set_vring_call(0, &other).unwrap();
    let _ = other.read();
    raw.read_sector(0);
    assert!(is_signalled(&other, Duration::from_secs(10)));
}

/// The message that would start the queue is refused, the client is notified, and the queue starts once the addresses are right.
#[test]
fn a_queue_with_impossible_rings_does_not_start_and_the_connection_goes_on() {
    let server = Server::simple();
    let mut raw = Raw::connect(&server.socket(0));
    let error = eventfd(EFD_NONBLOCK);
    raw.frontend.set_vring_err(0, &error).unwrap();
    raw.set_up(0);
    type Change = fn(&mut VringConfigData);
    let wrong: [Change; 3] = [
        |addresses| addresses.used_ring_addr = 0x1000,
        |addresses| addresses.desc_table_addr = u64::MAX - 15,
        |addresses| addresses.avail_ring_addr = u64::MAX - 1,
    ];
    for change in wrong {
        raw.frontend.set_vring_enable(0, false).unwrap();
        let mut addresses = Raw::addresses();
        change(&mut addresses);
        raw.frontend.set_vring_addr(0, &addresses).unwrap();
        raw.frontend.set_vring_enable(0, true).unwrap_err();
        assert!(is_signalled(&error, STALLED));
        error.read().unwrap();
        raw.frontend.set_vring_call(0, &raw.call).unwrap();
        assert!(raw.is_connected());
        assert_eq!(raw.frontend.get_vring_base(0).unwrap(), 0);
        raw.frontend.set_vring_kick(0, &raw.kick).unwrap_err();
        assert!(is_signalled(&error, STALLED));
        error.read().unwrap();
    }
    raw.frontend.get_vring_base(0).unwrap();
    raw.set_up(0);
    assert_eq!(raw.read_sector(0), [0; 512]);
}

#[test]
fn impossible_set_ups_end_the_connection() {
    let server = Server::simple();
    let attack = |what: &str, attack: &dyn Fn(&mut Raw)| {
        println!("{what}");
        let mut raw = Raw::connect(&server.socket(0));
        attack(&mut raw);
        raw.wait_closed();
    };
    attack("a queue size that is no power of two", &|raw| {
        drop(raw.frontend.set_vring_num(0, 17).unwrap_err())
    });
    attack("a region longer than its file", &|raw| {
        let region = VhostUserMemoryRegionInfo {
            memory_size: 1 << 30,
            ..raw.region()
        };
        raw.frontend.set_mem_table(&[region]).unwrap_err();
    });
    attack("regions that overlap", &|raw| {
        raw.frontend
            .set_mem_table(&[raw.region(), raw.region()])
            .unwrap_err();
    });
    attack("features that were not offered", &|raw| {
        drop(raw.frontend.set_features(1 << 34).unwrap_err())
    });
    let mut client = Client::simple(&server.socket(0));
    client.write(0, 0, &pattern(1, 512)).unwrap();
}

#[test]
fn malformed_messages_end_the_connection() {
    let server = Server::simple();
    let mut too_long = message(2, &[]);
    too_long[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    let mut other_version = message(1, &[]);
    other_version[4] = 2;
    for malformed in [
        too_long,
        other_version,
        message(0, &[]),
        message(9999, &[]),
        message(2, &[0; 3]),
        vec![0xff; 64],
    ] {
        let mut socket = UnixStream::connect(server.socket(0)).unwrap();
        socket.write_all(&malformed).unwrap();
        wait_closed(&socket);
    }
    Client::simple(&server.socket(0)).write(0, 0, &[1; 512]).unwrap();
}

/// A client sends half a header. Other clients are served meanwhile, and the connection ends after a while.
#[test]
fn half_a_message_delays_no_other_client() {
    let (server, mut bystander) = Server::with_bystander();
    for part in [
        &message(2, &[0; 8])[..5],
        &message(2, &[0; 8])[..12],
        &message(2, &[0; 8])[..19],
    ] {
        let mut socket = UnixStream::connect(server.socket(0)).unwrap();
        socket.write_all(part).unwrap();
        for _ in 0..100 {
            bystander.is_served();
        }
        wait_closed(&socket);
    }
    Client::simple(&server.socket(0)).write(0, 0, &[1; 512]).unwrap();
}

#[test]
fn a_message_may_come_in_pieces() {
    let server = Server::simple();
    let mut socket = UnixStream::connect(server.socket(0)).unwrap();
    for byte in message(1, &[]) {
        socket.write_all(&[byte]).unwrap();
        std::thread::yield_now();
    }
    assert!(readable(&socket, Duration::from_secs(10)));
    let mut reply = [0; 20];
    socket.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], 1u32.to_ne_bytes());
}

/// A client that sends messages without end does not delay requests of other clients.
#[test]
fn a_flood_of_messages_delays_no_other_client() {
    let (server, mut bystander) = Server::with_bystander();
    let flood = UnixStream::connect(server.socket(0)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let threads = [0, 1].map(|what| {
        let (mut socket, over) = (flood.try_clone().unwrap(), over.clone());
        std::thread::spawn(move || {
            let batch = message(1, &[]).repeat(100);
            while !over.load(Ordering::Relaxed) {
                match what {
                    0 => socket.write_all(&batch).unwrap_or_default(),
                    _ => drop(socket.read(&mut [0; 4096])),
                }
            }
        })
    });
    for _ in 0..1000 {
        bystander.is_served();
    }
    over.store(true, Ordering::Relaxed);
    flood.shutdown(std::net::Shutdown::Both).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A client that does not read the replies is disconnected before the daemon would have to wait for it.
#[test]
fn a_client_that_does_not_read_is_disconnected() {
    let (server, mut bystander) = Server::with_bystander();
    let mut unread = UnixStream::connect(server.socket(0)).unwrap();
    let batch = message(1, &[]).repeat(100);
    let is_disconnected = (0..10_000).any(|_| unread.write_all(&batch).is_err());
    assert!(is_disconnected);
    bystander.is_served();
    drop(unread);
    Client::simple(&server.socket(0)).write(0, 0, &[1; 512]).unwrap();
}

/// A message with a reply. After the reply, all earlier messages have been handled, and the loop has
/// completed an iteration.
trait Ask {
    fn get_config_of(&mut self, len: usize);
}

impl Ask for vhost::vhost_user::Frontend {
    fn get_config_of(&mut self, len: usize) {
        let flags = vhost::vhost_user::message::VhostUserConfigFlags::WRITABLE;
        for _ in 0..3 {
            let (_, config) = self.get_config(0, len as u32, flags, &vec![0; len]).unwrap();
            assert_eq!(config.len(), len);
        }
    }
}
