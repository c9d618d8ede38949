//! Rings and requests that break the rules cause an error status, or stop their queue, and have no other
//! effect.

use blockd::Source;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use crate::client::{STALLED, eventfd, is_signalled, pattern};
use crate::raw::{DATA, GUEST, HEADER, INDIRECT, NEXT, Raw, STATUS, TABLE, WRITE};
use crate::server::{Bystander, Server, Wanted};

const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const DISK: u64 = 1 << 20;

/// A daemon with the export to be attacked, and another export whose client must still be served.
struct Scene {
    server: Server,
    bystander: Bystander,
}

impl Scene {
    fn new() -> Self {
        let server = Wanted::new()
            .export(Source::Ram(DISK), 2)
            .export(Source::Ram(DISK), 1)
            .start();
        let bystander = Bystander::new(&server.socket(1));
        Self { server, bystander }
    }

    fn attacker(&self) -> Raw {
        Raw::ready(&self.server.socket(0))
    }

    /// Checks that the bystander is served, and so is the next client of the attacked export.
    fn all_is_well(&mut self) {
        self.bystander.is_served();
        let mut next = self.attacker();
        assert_eq!(next.read_sector(0), [0; 512], "the disk has changed");
    }

    /// Checks that `attack` stops its queue and has no other effect: the client is notified, its other queue
    /// is served, and the queue is served again once it is set up again.
    fn stops(&mut self, what: &str, attack: impl FnOnce(&mut Raw)) {
        println!("{what}");
        let mut queues = Raw::queues(&self.server.socket(0), 2);
        let error = eventfd(EFD_NONBLOCK);
        queues[0].frontend.set_vring_err(0, &error).unwrap();
        let raw = &mut queues[0];
        assert_eq!(raw.read_sector(0), [0; 512]);
        let used = raw.used();
        attack(raw);
        assert!(
            is_signalled(&error, STALLED),
            "{what}: the client is not notified"
        );
        assert_eq!(queues[1].read_sector(0), [0; 512], "{what}: the other queue");
        self.bystander.is_served();
        let raw = &mut queues[0];
        // A kick, and messages that do not set up the queue, do not restart it.
        raw.kick.write(1).unwrap();
        raw.frontend.set_vring_call(0, &raw.call).unwrap();
        raw.frontend.set_vring_enable(0, true).unwrap();
        Raw::share_all(&queues);
        assert_eq!(queues[1].read_sector(0), [0; 512], "{what}: the other queue");
        let raw = &mut queues[0];
        assert_eq!(raw.used(), used, "{what}: reported as done");
        let base = raw.frontend.get_vring_base(0).unwrap();
        assert_eq!(base, u32::from(used), "{what}: its position");
        raw.continue_at(used);
        raw.set_up(used);
        assert_eq!(raw.read_sector(0), [0; 512], "{what}: set up again");
        assert_eq!(queues[1].read_sector(0), [0; 512]);
        drop(queues);
        self.all_is_well();
    }
}

#[test]
fn malformed_chains_stop_their_queue_and_no_other() {
    let mut scene = Scene::new();
    scene.stops("a loop of one", |raw| {
        raw.describe(0, HEADER, 16, NEXT, 0);
        raw.offer(0);
    });
    scene.stops("a loop of two", |raw| {
        raw.describe(0, HEADER, 16, NEXT, 1);
        raw.describe(1, DATA, 512, NEXT, 0);
        raw.offer(0);
    });
    scene.stops("a next outside the table", |raw| {
        raw.describe(0, HEADER, 16, NEXT, 16);
        raw.offer(0);
    });
    scene.stops("a head outside the table", |raw| raw.offer(16));
    scene.stops("a head far outside the table", |raw| raw.offer(0xffff));
    scene.stops("something to read after something to write", |raw| {
        raw.describe(0, STATUS, 1, NEXT | WRITE, 1);
        raw.describe(1, HEADER, 16, 0, 0);
        raw.offer(0);
    });
    scene.stops("no status", |raw| {
        raw.describe(0, HEADER, 16, 0, 0);
        raw.offer(0);
    });
    scene.stops("a short header", |raw| {
        raw.describe(0, HEADER, 15, NEXT, 1);
        raw.describe(1, STATUS, 1, WRITE, 0);
        raw.offer(0);
    });
    scene.stops("a header outside the memory", |raw| {
        raw.describe(0, 0, 16, NEXT, 1);
        raw.describe(1, STATUS, 1, WRITE, 0);
        raw.offer(0);
    });
    scene.stops("a status outside the memory", |raw| {
        raw.header(4, 0);
        raw.describe(0, HEADER, 16, NEXT, 1);
        raw.describe(1, u64::MAX, 1, WRITE, 0);
        raw.offer(0);
    });
    for ahead in [17, 1000, 0x8000, 0xffff] {
        scene.stops("an available index that jumps", |raw| {
            raw.set_available(raw.used().wrapping_add(ahead))
        });
    }
}

#[test]
fn malformed_indirect_tables_stop_their_queue_and_no_other() {
    let mut scene = Scene::new();
    let ends_where = |at: u64| (at, 32u32);
    for (what, (at, len)) in [
        ("a table outside the memory", (0, 32)),
        ("a table at the end of all addresses", ends_where(u64::MAX - 15)),
        (
            "a table that reaches out of the memory",
            ends_where(GUEST + (1 << 20) - 16),
        ),
        ("a table of an odd length", (TABLE, 33)),
        ("an empty table", (TABLE, 0)),
        ("a table of four gigabytes", (TABLE, 0xffff_fff0)),
    ] {
        scene.stops(what, |raw| {
            raw.describe(0, at, len, INDIRECT, 0);
            raw.offer(0);
        });
    }
    scene.stops("a table in a table", |raw| {
        raw.describe(0, TABLE, 32, INDIRECT, 0);
        raw.describe_in(TABLE, 0, TABLE, 32, INDIRECT, 0);
        raw.offer(0);
    });
    scene.stops("a loop in a table", |raw| {
        raw.describe(0, TABLE, 32, INDIRECT, 0);
        raw.describe_in(TABLE, 0, HEADER, 16, NEXT, 1);
        raw.describe_in(TABLE, 1, DATA, 512, NEXT, 0);
        raw.offer(0);
    });
    scene.stops("a table with a next descriptor", |raw| {
        raw.describe(0, TABLE, 32, INDIRECT | NEXT, 1);
        raw.offer(0);
    });
}

/// Sends a request with one buffer and returns its status and the number of bytes that the device reports as written.
fn send(raw: &mut Raw, (kind, sector): (u32, u64), (addr, len, flags): (u64, u32, u16)) -> (u8, u32) {
    raw.header(kind, sector);
    raw.put(STATUS, &[0xff]);
    raw.describe(0, HEADER, 16, NEXT, 1);
    raw.describe(1, addr, len, NEXT | flags, 2);
    raw.describe(2, STATUS, 1, WRITE, 0);
    let used = raw.used();
    raw.offer(0);
    raw.wait_used(used.wrapping_add(1));
    (raw.get(STATUS, 1)[0], raw.used_entry(used).1)
}

/// The name, the request type and sector, the address, length and flags of the buffer, and the status of the
/// request.
type Attack = (&'static str, (u32, u64), (u64, u32, u16), u8);

#[test]
fn malformed_requests_get_a_status() {
    let mut scene = Scene::new();
    let mut raw = scene.attacker();
    raw.put(DATA, &[1; 4096]);
    let last = DISK / 512 - 1;
    let attacks: [Attack; 12] = [
        ("a write beyond the end", (1, last), (DATA, 1024, 0), IOERR),
        ("a write far beyond the end", (1, u64::MAX), (DATA, 512, 0), IOERR),
        (
            "a write whose end overflows",
            (1, u64::MAX / 512),
            (DATA, 512, 0),
            IOERR,
        ),
        ("a read beyond the end", (0, last + 1), (DATA, 512, WRITE), IOERR),
        ("a write of no whole sector", (1, 0), (DATA, 513, 0), IOERR),
        ("a write from nowhere", (1, 0), (0, 512, 0), IOERR),
        ("a read to nowhere", (0, 0), (u64::MAX - 100, 512, WRITE), IOERR),
        (
            "a read across the end of the memory",
            (0, 0),
            (GUEST + (1 << 20) - 256, 512, WRITE),
            IOERR,
        ),
        (
            "a read of four gigabytes",
            (0, 0),
            (DATA, 0xffff_fe00, WRITE),
            IOERR,
        ),
        ("an unknown type", (77, 0), (DATA, 512, WRITE), UNSUPP),
        ("a discard without a range", (11, 0), (DATA, 0, 0), IOERR),
        ("a discard of half a range", (11, 0), (DATA, 8, 0), IOERR),
    ];
    for (what, request, buffer, status) in attacks {
        assert_eq!(send(&mut raw, request, buffer), (status, 1), "{what}");
    }
    // A write from a buffer that ends outside the memory may have begun, but here it has not: the beginning
    // of the disk is unchanged.
    assert_eq!(raw.read_sector(0), [0; 512]);
    drop(raw);
    scene.all_is_well();
}

#[test]
fn the_serial_number_is_read() {
    let scene = Scene::new();
    let mut raw = scene.attacker();
    assert_eq!(send(&mut raw, (8, 0), (DATA, 20, WRITE)), (0, 21));
    // The rest is a hash of the socket's path.
    assert_eq!(raw.get(DATA, 7), b"blockd-");
    assert!(raw.get(DATA + 7, 13).iter().all(u8::is_ascii_hexdigit));
}

/// Header and status in pieces, and an indirect table, all in one request.
#[test]
fn an_unusual_layout_is_served() {
    let scene = Scene::new();
    let mut raw = scene.attacker();
    raw.header(1, 5);
    raw.put(DATA, &pattern(9, 512));
    raw.put(STATUS, &[0xff; 3]);
    raw.describe(3, TABLE, 16 * 6, INDIRECT, 0);
    raw.describe_in(TABLE, 0, HEADER, 7, NEXT, 2);
    raw.describe_in(TABLE, 2, HEADER + 7, 9, NEXT, 1);
    raw.describe_in(TABLE, 1, DATA, 100, NEXT, 5);
    raw.describe_in(TABLE, 5, DATA + 100, 412, NEXT, 3);
    raw.describe_in(TABLE, 3, STATUS, 0, NEXT | WRITE, 4);
    raw.describe_in(TABLE, 4, STATUS + 1, 1, WRITE, 0);
    raw.offer(3);
    raw.wait_used(1);
    assert_eq!(raw.get(STATUS, 3), [0xff, 0, 0xff]);
    assert_eq!(raw.used_entry(0), (3, 1));
    assert_eq!(raw.read_sector(5), pattern(9, 512));
}

/// A few thousand rings with random descriptors. The daemon and the other client survive all of them.
#[test]
fn random_rings_harm_no_other_client() {
    let mut random = crate::seed();
    let server = Wanted::new()
        .export(Source::Null(DISK), 1)
        .export(Source::Ram(DISK), 1)
        .start();
    let mut bystander = Bystander::new(&server.socket(1));
    for _ in 0..300 {
        let mut raw = Raw::ready(&server.socket(0));
        for _ in 0..10 {
            scribble(&raw, &mut random);
            raw.offer(random.u16(..18));
            if random.u8(..10) == 0 {
                raw.set_available(random.u16(..));
            }
        }
        bystander.is_served();
    }
}

fn scribble(raw: &Raw, random: &mut fastrand::Rng) {
    raw.header([0, 1, 4, 8, 11, 13, 99][random.usize(..7)], random.u64(..4096));
    for table in [GUEST, TABLE] {
        for index in 0..16 {
            let addr = match random.u8(..8) {
                0 => random.u64(..),
                1 => TABLE,
                2 => GUEST + (1 << 20) - random.u64(..1024),
                _ => HEADER + random.u64(..0x2000),
            };
            let len = [1, 16, 512, 1024, 256, random.u32(..4096), random.u32(..)][random.usize(..7)];
            let flags = [0, NEXT, NEXT, WRITE, NEXT | WRITE, INDIRECT, random.u16(..)][random.usize(..7)];
            raw.describe_in(table, index, addr, len, flags, random.u16(..17));
        }
    }
}
