//! C26: a client that migrates its guest gets marks for the pages that the device has written.

use std::fs::File;
use std::os::fd::AsRawFd;

use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost::{VhostBackend, VhostUserDirtyLogRegion};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use crate::client::shared;
use crate::daemon::Daemon;
use crate::raw::{DATA, GUEST, HEADER, PROTOCOL, Raw, STATUS, TABLE, VERSION_1, WRITE};
use crate::server::Server;

const LOG_ALL: u64 = 1 << 26;
const INDIRECT_DESC: u64 = 1 << 28;
const USED: u64 = GUEST + 0x2000;
const PAGE: u64 = 4096;
/// The bytes of a bitmap for the memory of the client.
const LOG_BYTES: usize = 4096;

struct Log {
    file: File,
    bits: MmapRegion,
}

impl Log {
    fn new() -> Self {
        let (file, bits) = shared(LOG_BYTES);
        Self { file, bits }
    }

    fn share(&self, raw: &Raw) {
        let region = VhostUserDirtyLogRegion {
            mmap_size: LOG_BYTES as u64,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        raw.frontend.set_log_base(0, Some(region)).unwrap();
    }

    /// Takes the marks. Returns the guest addresses of the marked pages.
    fn take(&self) -> Vec<u64> {
        let mut bytes = [0; LOG_BYTES];
        self.bits.as_volatile_slice().read_slice(&mut bytes, 0).unwrap();
        self.bits
            .as_volatile_slice()
            .write_slice(&[0; LOG_BYTES], 0)
            .unwrap();
        (0..8 * LOG_BYTES as u64)
            .filter(|page| bytes[*page as usize / 8] & 1 << (page % 8) != 0)
            .map(|page| page * PAGE)
            .collect()
    }
}

fn connect(socket: &std::path::Path) -> Raw {
    Raw::ready_with(socket, VhostUserProtocolFeatures::LOG_SHMFD)
}

/// Turns the log on or off while the queue runs, like QEMU when a migration begins and ends.
fn set_logging(raw: &Raw, on: bool) {
    let features = VERSION_1 | INDIRECT_DESC | PROTOCOL;
    let (features, mut addresses) = match on {
        true => (features | LOG_ALL, Raw::addresses()),
        false => (features, Raw::addresses()),
    };
    raw.frontend.set_features(features).unwrap();
    if on {
        addresses.flags = 1;
        addresses.log_addr = Some(USED);
    }
    raw.frontend.set_vring_addr(0, &addresses).unwrap();
}

#[test]
fn c26_pages_that_the_device_has_written_are_marked() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let path = format!("path={}", image.path().display());
    for (disk, args) in [
        ("ram=1M", ["--poll-max", "0"]),
        ("ram=1M", ["--poll-max", "100us"]),
        (path.as_str(), ["--engine", "threads"]),
        (path.as_str(), ["--engine", "auto"]),
        (path.as_str(), ["--engine", "sync"]),
        (path.as_str(), ["--engine", "uring"]),
    ] {
        let daemon = Daemon::start(disk, &args);
        let mut raw = connect(daemon.socket());
        let log = Log::new();
        log.share(&raw);
        raw.read_sector(0);
        assert_eq!(log.take(), [0_u64; 0], "not before it is wanted");
        set_logging(&raw, true);
        log.take();
        for round in 0..20 {
            // The device writes eight pages, and reads one.
            assert_eq!(raw.request(0, round, &[(DATA + 0x3000, 8 * 4096)], WRITE), 0);
            let pages = (0..8).map(|page| DATA + 0x3000 + page * PAGE);
            let mut expected: Vec<u64> = [USED, STATUS].into_iter().chain(pages).collect();
            expected.sort_unstable();
            // The driver may see the completion before the used ring is marked. The reply to this message
            // comes after both.
            raw.config();
            let marked = log.take();
            assert_eq!(marked, expected, "{disk} {args:?}");
            assert!(!marked.contains(&HEADER) && !marked.contains(&TABLE));
            assert_eq!(raw.request(1, round, &[(DATA, 512)], 0), 0);
            raw.config();
            assert_eq!(log.take(), [USED, STATUS]);
        }
        set_logging(&raw, false);
        log.take();
        raw.read_sector(0);
        raw.config();
        assert_eq!(log.take(), [0_u64; 0], "not any longer");
    }
}

#[test]
fn c26_a_log_that_is_none_is_refused_and_one_that_is_lost_ends_the_connection() {
    let (server, mut bystander) = Server::with_bystander();
    let raw = connect(&server.socket(0));
    let (short, _map) = shared(4096);
    let region = |mmap_size, mmap_offset| VhostUserDirtyLogRegion {
        mmap_size,
        mmap_offset,
        mmap_handle: short.as_raw_fd(),
    };
    assert!(raw.frontend.set_log_base(0, Some(region(8192, 0))).is_err());
    raw.wait_closed();
    bystander.is_served();
    drop(raw);

    let mut raw = connect(&server.socket(0));
    let log = Log::new();
    log.share(&raw);
    set_logging(&raw, true);
    raw.read_sector(0);
    log.file.set_len(0).unwrap();
    raw.offer(0);
    raw.wait_closed();
    bystander.is_served();
}

/// The log has too few bits. Pages without a bit are not marked, and there is no other effect.
#[test]
fn c26_pages_beyond_the_log_are_not_marked() {
    let daemon = Daemon::start("ram=1M", &[]);
    let mut raw = connect(daemon.socket());
    let (file, _map) = shared(4096);
    let region = VhostUserDirtyLogRegion {
        mmap_size: 1,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    raw.frontend.set_log_base(0, Some(region)).unwrap();
    set_logging(&raw, true);
    for sector in 0..10 {
        raw.read_sector(sector);
    }
    assert_eq!(raw.request(0, 0, &[(DATA, 512)], WRITE), 0);
}
