//! C6 with in-flight tracking: requests complete in any order, and the next daemon finds the outstanding ones
//! in an area of the client.

mod again;
mod frozen;
mod once;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};

use crate::client::shared;
use crate::daemon::Daemon;
use crate::engines::has_ring;
use crate::images::Image;
use crate::raw::{
    DATA, EVENT_IDX, HEADER, INDIRECT, NEXT, PROTOCOL, Raw, SIZE, STATUS, TABLE, VERSION_1, WRITE,
};
use crate::server::Server;
use frozen::Frozen;

const TRACKING: VhostUserProtocolFeatures = VhostUserProtocolFeatures::INFLIGHT_SHMFD;
const FEATURES: u64 = VERSION_1 | PROTOCOL | EVENT_IDX;

/// Stores a value in a region, at an offset in bytes.
fn store(area: &File, at: u64, value: u16) {
    area.write_all_at(&value.to_ne_bytes(), at).unwrap();
}

fn load(area: &File, at: u64) -> u16 {
    let mut bytes = [0; 2];
    area.read_exact_at(&mut bytes, at).unwrap();
    u16::from_ne_bytes(bytes)
}

const VERSION_AT: u64 = 8;
const USED_INDEX_AT: u64 = 14;

fn entry(head: u16) -> u64 {
    16 + 16 * u64::from(head)
}

/// Marks a request like a daemon that was killed later.
fn mark(area: &File, head: u16, counter: u64) {
    store(area, VERSION_AT, 1);
    area.write_all_at(&[1], entry(head)).unwrap();
    area.write_all_at(&counter.to_ne_bytes(), entry(head) + 8)
        .unwrap();
}

/// Returns the heads that are marked.
fn marked(area: &File) -> Vec<u16> {
    (0..SIZE)
        .filter(|head| load(area, entry(*head)) & 0xff != 0)
        .collect()
}

impl Raw {
    /// Connects a client with these features, whose requests are tracked.
    fn tracked(socket: &Path, features: u64) -> Self {
        let mut raw = Self::connect_with(socket, TRACKING);
        raw.get_inflight(1);
        raw.reconnect(socket, features, 0);
        raw
    }

    fn area(&self) -> &File {
        &self.inflight.as_ref().unwrap().1
    }

    /// Waits until exactly these heads are marked. The driver may see a completion before its mark is
    /// removed.
    fn wait_marked(&self, heads: &[u16]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while marked(self.area()) != heads {
            let found = marked(self.area());
            assert!(Instant::now() < deadline, "{found:?} are marked, not {heads:?}");
            std::thread::yield_now();
        }
    }

    /// Returns the heads of the completions from this position on, in ascending order.
    fn heads_since(&self, position: u16) -> Vec<u32> {
        let count = self.used().wrapping_sub(position);
        let mut heads: Vec<u32> = (0..count)
            .map(|at| self.used_entry(position.wrapping_add(at)).0)
            .collect();
        heads.sort_unstable();
        heads
    }
}

/// Returns the engines that execute requests beside the loop.
fn engines() -> Vec<&'static str> {
    let engines = ["auto", "uring", "threads"].into_iter();
    engines
        .filter(|engine| *engine != "uring" || has_ring())
        .collect()
}

/// A frozen file system completes no write. Later reads complete with tracking, and without it they do not.
#[test]
fn c6_a_request_that_hangs_delays_those_behind_it_without_tracking_only() {
    for engine in engines() {
        let Some(mut frozen) = Frozen::start(engine) else {
            return;
        };
        let written = frozen.hang_write();
        let used = frozen.raw.used();
        frozen.system.thaw();
        frozen.raw.wait_used(used.wrapping_add(1));
        assert_eq!(frozen.raw.used_entry(used), (written.into(), 1), "{engine}");
        let position = frozen.raw.frontend.get_vring_base(0).unwrap() as u16;
        assert!(marked(frozen.raw.area()).is_empty());

        frozen.raw.inflight = None;
        frozen.reconnect(position);
        frozen.system.freeze();
        let raw = &mut frozen.raw;
        let heads = [raw.prepare_write(0, 6, &[8; 512]), raw.prepare_read(1, 9)];
        heads.iter().for_each(|head| raw.offer(*head));
        frozen.neighbour_is_served();
        assert_eq!(frozen.raw.used(), position, "{engine}");
        frozen.system.thaw();
        frozen.raw.wait_used(position.wrapping_add(2));
        let order = [0, 1].map(|at| frozen.raw.used_entry(position.wrapping_add(at)).0);
        assert_eq!(order, heads.map(u32::from), "{engine}");
    }
}

/// Two writes hang. More requests than the queue has entries complete between and after them. The daemon is
/// killed, and the next one executes exactly these two, with any engine.
#[test]
fn c6_the_next_daemon_executes_what_was_outstanding() {
    let pairs = engines()
        .into_iter()
        .flat_map(|engine| [(engine, engine), (engine, "sync")]);
    for (number, (first, second)) in pairs.enumerate() {
        let Some(mut frozen) = Frozen::start(first) else {
            return;
        };
        frozen.raw.read_sector(9);
        frozen.system.freeze();
        let written = [frozen.raw.prepare_write(0, 5, &[1; 512]), SIZE - 1];
        frozen.raw.offer(written[0]);
        frozen.read_around();
        let raw = &mut frozen.raw;
        raw.put(
            HEADER + 0x80,
            &[1_u64.to_le_bytes(), 6_u64.to_le_bytes()].concat(),
        );
        raw.put(DATA + 0x1000, &[2; 512]);
        raw.describe_in(TABLE, 0, HEADER + 0x80, 16, NEXT, 1);
        raw.describe_in(TABLE, 1, DATA + 0x1000, 512, NEXT, 2);
        raw.describe_in(TABLE, 2, STATUS + 8, 1, WRITE, 0);
        raw.describe(written[1], TABLE, 48, INDIRECT, 0);
        raw.offer(written[1]);
        frozen.read_around();
        frozen.raw.wait_marked(&written);
        let (used, offered) = (frozen.raw.used(), frozen.raw.offered());
        assert_eq!(offered.wrapping_sub(used), 2);
        frozen.kill();
        assert_eq!(frozen.raw.used(), used);
        // The system has executed the writes that had begun.
        let image = File::options().write(true).open(frozen.system.image()).unwrap();
        image.write_all_at(&[0; 4096], 0).unwrap();
        drop(image);
        frozen.daemon = Some(Frozen::daemon(&frozen.system, second));
        frozen.raw.ask_for_call();
        drop(frozen.raw.call.read());
        frozen.reconnect(if number % 2 == 0 { offered } else { used });
        let raw = &mut frozen.raw;
        raw.wait_used(offered);
        raw.wait_called();
        assert_eq!(raw.heads_since(used), written.map(u32::from), "{first}, {second}");
        raw.wait_marked(&[]);
        for (sector, byte) in [(4, 0), (5, 1), (6, 2), (7, 0)] {
            assert_eq!(
                raw.read_sector(sector),
                [byte; 512],
                "{first}, {second}, {sector}"
            );
        }
        let position = raw.frontend.get_vring_base(0).unwrap();
        assert_eq!(position, u32::from(raw.used()));
    }
}

/// Returns disks and arguments for every executor of requests.
fn every_way() -> Vec<(bool, Vec<&'static str>)> {
    let mut ways = vec![
        (false, vec!["--poll-max", "0"]),
        (false, vec!["--poll-max", "100us"]),
    ];
    for engine in engines().into_iter().chain(["sync"]) {
        for polling in ["0", "100us"] {
            ways.push((true, vec!["--engine", engine, "--poll-max", polling]));
        }
    }
    ways
}

/// Requests that another daemon has left are executed before new ones, in the order in which that daemon had
/// taken them.
#[test]
fn c6_requests_that_were_left_are_executed_first() {
    for (is_image, args) in every_way() {
        for names_available in [false, true] {
            let image = Image::new(1 << 20);
            let disk = if is_image {
                image.disk()
            } else {
                "ram=1M".to_owned()
            };
            let daemon = Daemon::start(&disk, &args);
            let mut raw = Raw::tracked(daemon.socket(), FEATURES);
            for sector in 0..40 {
                raw.read_sector(sector);
            }
            raw.frontend.get_vring_base(0).unwrap();
            let used = raw.used();
            // The last three of five requests were taken. Two of them had other places in the available ring.
            for slot in 0..5_u16 {
                let head = raw.prepare_write(slot, 10 + u64::from(slot), &[slot as u8; 512]);
                raw.offer([12, 3, 12, 0, 3][usize::from(slot)]);
                assert_eq!(head, 3 * slot);
            }
            for (head, counter) in [(6, 2_u64 << 40), (9, 1), (12, u64::MAX - 1)] {
                mark(raw.area(), head, counter);
            }
            store(raw.area(), USED_INDEX_AT, used);
            let base = if names_available { raw.offered() } else { used };
            raw.reconnect(daemon.socket(), FEATURES, base);
            raw.wait_used(raw.offered());
            raw.wait_called();
            assert_eq!(raw.heads_since(used), [0, 3, 6, 9, 12], "{args:?}");
            if !is_image || args.contains(&"sync") {
                let order = (0..5).map(|at| raw.used_entry(used.wrapping_add(at)).0);
                assert_eq!(order.collect::<Vec<_>>(), [9, 6, 12, 0, 3], "{args:?}");
            }
            raw.wait_marked(&[]);
            for slot in 0..5 {
                assert_eq!(raw.read_sector(10 + u64::from(slot)), [slot; 512], "{args:?}");
            }
        }
    }
}

/// Offers a request of `len` MiB at each of these heads. All have the same buffers.
fn offer_long(raw: &mut Raw, heads: &[u16], len: u16) {
    const PIECE: u32 = 1 << 18;
    raw.header(1, 0);
    let last = 4 * len + 1;
    raw.describe_in(TABLE, 0, HEADER, 16, NEXT, 1);
    for index in 1..last {
        raw.describe_in(TABLE, index, DATA + 0x1_0000, PIECE, NEXT, index + 1);
    }
    raw.describe_in(TABLE, last, STATUS, 1, WRITE, 0);
    for head in heads {
        raw.describe(*head, TABLE, 16 * (u32::from(last) + 1), INDIRECT, 0);
        raw.offer(*head);
    }
}

/// The requests that were left take several turns of the loop. The queue stops once all of them are complete,
/// and takes no others meanwhile.
#[test]
fn c6_a_queue_stops_once_what_was_left_is_complete() {
    for (is_image, args) in every_way() {
        let image = Image::new(16 << 20);
        let disk = if is_image {
            image.disk()
        } else {
            "ram=16M".to_owned()
        };
        let daemon = Daemon::start(&disk, &args);
        let mut raw = Raw::tracked(daemon.socket(), FEATURES);
        let heads = [1, 2, 3, 4, 5, 6, 7];
        offer_long(&mut raw, &heads, 8);
        raw.wait_used(7);
        for _ in 0..3 {
            raw.frontend.get_vring_base(0).unwrap();
            let used = raw.used();
            offer_long(&mut raw, &heads, 8);
            // The first five requests were taken.
            for head in &heads[..5] {
                mark(raw.area(), *head, u64::from(*head));
            }
            store(raw.area(), USED_INDEX_AT, used);
            raw.reconnect(daemon.socket(), FEATURES, used);
            let position = raw.frontend.get_vring_base(0).unwrap() as u16;
            assert_eq!(raw.used(), position, "{args:?}");
            assert!(position.wrapping_sub(used) >= 5, "{args:?}");
            assert!(marked(raw.area()).is_empty(), "{args:?}");
            raw.frontend.set_vring_enable(0, true).unwrap();
            raw.wait_used(raw.offered());
            assert_eq!(raw.heads_since(used), heads.map(u32::from), "{args:?}");
        }
    }
}

/// The area is exchanged while the queue runs. Neither area has outstanding requests.
#[test]
fn c6_an_area_can_come_while_the_queue_runs() {
    let daemon = Daemon::start("ram=1M", &[]);
    let mut raw = Raw::ready_with(daemon.socket(), TRACKING);
    for sector in 0..40 {
        raw.read_sector(sector);
        raw.get_inflight(1);
        raw.share_inflight().unwrap();
        assert_eq!(load(raw.area(), VERSION_AT), 1);
        assert_eq!(load(raw.area(), USED_INDEX_AT), raw.used());
        raw.read_sector(sector);
    }
}

#[test]
fn c6_an_area_that_cannot_be_is_refused() {
    let (server, mut bystander) = Server::with_bystander();
    for (queues, size) in [(2, SIZE), (1, 24), (1, 0x8001)] {
        let mut raw = Raw::connect_with(&server.socket(0), TRACKING);
        let wanted = VhostUserInflight::new(0, 0, queues, size);
        assert!(raw.frontend.get_inflight_fd(&wanted).is_err());
        raw.wait_closed();
        bystander.is_served();
    }
    let (file, _map) = shared(8192);
    let len = 16 + 16 * u64::from(SIZE) + 48;
    for (len, offset, queues) in [
        (len - 1, 0, 1),
        (len, 8192, 1),
        (len, 64, 1),
        (8192, u64::MAX, 1),
        (u64::MAX, 0, 2),
    ] {
        let mut raw = Raw::connect_with(&server.socket(0), TRACKING);
        let area = VhostUserInflight::new(len, offset, queues, SIZE);
        assert!(raw.frontend.set_inflight_fd(&area, file.as_raw_fd()).is_err());
        raw.wait_closed();
        bystander.is_served();
    }
    let mut raw = Raw::ready_with(&server.socket(0), TRACKING);
    let area = VhostUserInflight::new(len, 4096, 1, SIZE);
    raw.frontend.set_inflight_fd(&area, file.as_raw_fd()).unwrap();
    raw.read_sector(3);
    bystander.is_served();
}

/// A queue whose region contradicts its rings does not start, and the connection continues.
#[test]
fn c6_a_region_that_cannot_be_stops_its_queue_only() {
    let daemon = Daemon::start("ram=1M", &[]);
    let mut raw = Raw::tracked(daemon.socket(), FEATURES);
    raw.read_sector(1);
    raw.frontend.get_vring_base(0).unwrap();
    mark(raw.area(), 4, 0);
    assert!(raw.frontend.set_vring_enable(0, true).is_err());
    assert!(raw.is_connected());
    assert_eq!(raw.used(), 1);
    // A new area is the remedy.
    raw.get_inflight(1);
    raw.share_inflight().unwrap();
    raw.read_sector(2);
    drop(raw);
    let log = daemon.stop();
    assert!(
        log.contains("1 requests are in flight by the in-flight region, and 0 by the rings"),
        "{log}"
    );
}

#[test]
fn c6_an_area_that_is_truncated_ends_the_connection() {
    let (server, mut bystander) = Server::with_bystander();
    let (file, _map) = shared(4096);
    let area = VhostUserInflight::new(4096, 0, 1, SIZE);
    let mut raw = Raw::ready_with(&server.socket(0), TRACKING);
    raw.inflight = Some((area, file.try_clone().unwrap()));
    raw.share_inflight().unwrap();
    raw.read_sector(0);
    file.set_len(0).unwrap();
    // The region is read when the queue starts again.
    raw.frontend.get_vring_base(0).unwrap();
    assert!(raw.frontend.set_vring_enable(0, true).is_err());
    assert!(raw.is_connected());
    drop(raw);
    bystander.is_served();
    Raw::ready(&server.socket(0)).read_sector(0);
}

/// Pages are lost while requests are marked in them.
#[test]
fn c6_marks_in_lost_pages_end_the_connection() {
    for engine in ["threads", "uring"] {
        if engine == "uring" && !has_ring() {
            continue;
        }
        let image = Image::new(1 << 20);
        let daemon = Daemon::start(&image.disk(), &["--engine", engine]);
        let (file, _map) = shared(4096);
        let mut raw = Raw::ready_with(daemon.socket(), TRACKING);
        let area = VhostUserInflight::new(4096, 0, 1, SIZE);
        raw.inflight = Some((area, file.try_clone().unwrap()));
        raw.share_inflight().unwrap();
        raw.read_sector(0);
        file.set_len(0).unwrap();
        raw.offer(0);
        raw.wait_closed();
        daemon.serves();
        let log = daemon.stop();
        assert!(log.contains("has lost pages"), "{log}");
    }
}
