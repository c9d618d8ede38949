//! Memory that is truncated, removed, replaced or malformed while the daemon uses it.

use std::os::fd::AsRawFd;

use blockd::Source;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::eventfd::EFD_SEMAPHORE;

use crate::client::{eventfd, pattern, shared};
use crate::daemon::Daemon;
use crate::raw::{DATA, GUEST, HEADER, NEXT, Raw, STATUS, WRITE};
use crate::seed;
use crate::server::Wanted;

const SLOTS: VhostUserProtocolFeatures = VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;

/// A client's file loses each part that the daemon has mapped, in turn. Only that client is disconnected.
#[test]
fn case_01_a_file_cut_short_ends_only_that_connection() {
    for args in [
        &[][..],
        &["--poll-max", "1ms", "--policy", "always", "--backend", "epoll"],
    ] {
        let daemon = Daemon::start("ram=1M", args);
        let before = daemon.settled();
        for round in 0..10 {
            // First the data are lost, then also the status, then also the header and the rings.
            for left in [0x6000, 0x5000, 0x4000, 0x2000, 0x1000, 0] {
                let mut raw = Raw::ready(daemon.socket());
                raw.read_sector(round);
                if left >= 0x2000 {
                    raw.header(round as u32 % 2, 1);
                }
                raw.describe(1, DATA, 512, if round % 2 == 0 { NEXT | WRITE } else { NEXT }, 2);
                raw.cut_short_and_offer(left);
                raw.wait_closed();
            }
            daemon.serves();
        }
        daemon.holds_the_same_as(before);
        daemon.is_at_rest();
        daemon.stop();
    }
}

/// The file is already short when the queue is set up in it. Only that client is disconnected.
#[test]
fn case_01_a_file_cut_short_before_the_queue_starts() {
    let daemon = Daemon::start("ram=1M", &[]);
    for _ in 0..3 {
        let mut raw = Raw::connect(daemon.socket());
        raw.file.set_len(0).unwrap();
        raw.set_up(0);
        // The daemon may end the connection before it replies.
        drop(raw.frontend.set_vring_enable(0, true));
        raw.kick.write(1).unwrap();
        raw.wait_closed();
        daemon.serves();
    }
    daemon.is_at_rest();
}

/// One of two regions is truncated. The other one is used up to the request that accesses the lost one.
#[test]
fn case_02_a_request_into_lost_memory_is_not_reported_as_done() {
    let server = Wanted::new().export(Source::Ram(1 << 20), 1).start();
    let mut raw = Raw::connect_with(&server.socket(0), SLOTS);
    let (file, map) = shared(0x1000);
    let guest = 1 << 30;
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: guest,
        memory_size: 0x1000,
        userspace_addr: 1 << 40,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    raw.frontend.add_mem_region(&region).unwrap();
    raw.set_up(0);
    raw.frontend.set_vring_enable(0, true).unwrap();
    raw.read_sector(0);
    file.set_len(0).unwrap();
    raw.read_sector(0);
    raw.put(STATUS, &[0xff]);
    raw.describe(1, guest, 512, NEXT | WRITE, 2);
    raw.offer(0);
    raw.wait_closed();
    assert_eq!(raw.used(), 2);
    drop(map);
}

/// A region, the length of its file, and the reason for which the region is refused.
#[test]
fn case_03_malformed_regions_end_the_connection() {
    let daemon = Daemon::start("ram=1M", &[]);
    let before = daemon.settled();
    type Change = fn(&mut VhostUserMemoryRegionInfo);
    let wrong: [(&str, Change); 12] = [
        ("longer than all addresses", |r| r.memory_size = u64::MAX),
        ("longer than any file", |r| {
            r.memory_size = i64::MAX as u64 & !0xfff
        }),
        ("a length of 63 bits", |r| r.memory_size = 1 << 63),
        ("longer than its file", |r| r.memory_size += 1),
        ("its end overflows for the guest", |r| {
            r.guest_phys_addr = u64::MAX - 0xfff
        }),
        ("its end overflows for the client", |r| {
            r.userspace_addr = u64::MAX - 0xfff
        }),
        ("its end overflows in the file", |r| {
            r.mmap_offset = u64::MAX - 0xfff
        }),
        ("an offset behind the file", |r| r.mmap_offset = 1 << 40),
        ("an offset that cannot be mapped", |r| {
            r.mmap_offset = 1;
            r.memory_size -= 0x1000;
        }),
        ("it overlaps the beginning", |r| r.guest_phys_addr -= 0x1000),
        ("it overlaps the end", |r| r.guest_phys_addr += 0x1000),
        ("it is there already", |_| {}),
    ];
    for (what, change) in wrong {
        println!("{what}");
        for table in [false, true] {
            let mut raw = Raw::ready_with(daemon.socket(), SLOTS);
            raw.read_sector(0);
            let mut region = raw.region();
            change(&mut region);
            if table {
                let both = [raw.region(), region];
                raw.frontend.set_mem_table(&both).unwrap_err();
            } else {
                raw.frontend.add_mem_region(&region).unwrap_err();
            }
            raw.wait_closed();
        }
        daemon.serves();
    }
    daemon.holds_the_same_as(before);
    daemon.is_at_rest();
}

/// Descriptors that cannot be memory are refused by the system or by the daemon, and are never kept.
#[test]
fn case_04_files_that_cannot_be_memory_end_the_connection() {
    let daemon = Daemon::start("ram=1M", &[]);
    let before = daemon.settled();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let eventfd = eventfd(0);
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let directory = std::fs::File::open(daemon.directory.path()).unwrap();
    let path = daemon.directory.path().join("read-only");
    std::fs::write(&path, [0; 1 << 16]).unwrap();
    let read_only = std::fs::File::open(&path).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let files = [
        pipe.as_raw_fd(),
        eventfd.as_raw_fd(),
        socket.as_raw_fd(),
        directory.as_raw_fd(),
        read_only.as_raw_fd(),
        null.as_raw_fd(),
    ];
    for mmap_handle in files {
        let raw = Raw::connect(daemon.socket());
        let region = VhostUserMemoryRegionInfo {
            mmap_handle,
            memory_size: 0x1000,
            ..raw.region()
        };
        raw.frontend.set_mem_table(&[region]).unwrap_err();
        raw.wait_closed();
        drop(raw);
        daemon.serves();
    }
    daemon.holds_the_same_as(before);
}

/// The region with the rings is removed while requests are offered. The queue waits, and continues by itself
/// once the region is back. (QEMU removes and adds a region that changes its size, and sends no message about
/// queues.)
#[test]
fn case_05_memory_may_go_and_come_back() {
    let server = Wanted::new().export(Source::Ram(1 << 20), 1).start();
    let mut raw = Raw::ready_with(&server.socket(0), SLOTS);
    for round in 0..20 {
        raw.read_sector(round);
        let region = raw.region();
        raw.frontend.remove_mem_region(&region).unwrap();
        let used = raw.used();
        raw.offer(0);
        raw.frontend.get_max_mem_slots().unwrap();
        raw.frontend.get_max_mem_slots().unwrap();
        assert_eq!(raw.used(), used, "served without memory");
        raw.frontend.add_mem_region(&region).unwrap();
        raw.wait_used(used.wrapping_add(1));
        let base = raw.frontend.get_vring_base(0).unwrap();
        assert_eq!(base, u32::from(used) + 1);
        raw.set_up(used.wrapping_add(1));
        raw.frontend.set_vring_enable(0, true).unwrap();
    }
}

/// Tables of all kinds arrive between requests of all kinds. The next client is served, even if this one is
/// disconnected.
#[test]
fn case_06_tables_and_requests_in_any_order() {
    let mut random = seed();
    let daemon = Daemon::start("ram=1M", &["--poll-max", "50us", "--backend", "epoll"]);
    let before = daemon.settled();
    for _ in 0..100 {
        let mut raw = Raw::ready_with(daemon.socket(), SLOTS);
        let mut alive = true;
        for _ in 0..20 {
            let whole = raw.region();
            let half = VhostUserMemoryRegionInfo {
                memory_size: 0x8000,
                ..whole
            };
            let elsewhere = VhostUserMemoryRegionInfo {
                guest_phys_addr: whole.guest_phys_addr + (1 << 30),
                userspace_addr: whole.userspace_addr + (1 << 30),
                ..whole
            };
            let done = match random.u8(..8) {
                0 => raw.frontend.set_mem_table(&[whole]).map(drop),
                1 => raw.frontend.set_mem_table(&[half]).map(drop),
                2 => raw.frontend.set_mem_table(&[elsewhere]).map(drop),
                3 => raw.frontend.set_mem_table(&[whole, elsewhere]).map(drop),
                4 => raw
                    .frontend
                    .add_mem_region(&elsewhere)
                    .map(drop)
                    .or_else(|_| raw.frontend.set_vring_enable(0, true)),
                5 => raw.frontend.remove_mem_region(&elsewhere),
                6 => raw.frontend.set_vring_enable(0, random.bool()),
                _ => Ok(()),
            };
            alive = done.is_ok();
            if !alive {
                break;
            }
            raw.header(random.u32(..2), random.u64(..16));
            raw.put(DATA, &pattern(1, 512));
            let at = [DATA, GUEST + 0x7f00, GUEST + (1 << 30), GUEST + 0xff00][random.usize(..4)];
            raw.describe(0, HEADER, 16, NEXT, 1);
            raw.describe(1, at, 512, if random.bool() { NEXT | WRITE } else { NEXT }, 2);
            raw.describe(2, STATUS, 1, WRITE, 0);
            raw.offer(0);
        }
        if !alive {
            raw.wait_closed();
        }
    }
    daemon.serves();
    daemon.holds_the_same_as(before);
    daemon.is_at_rest();
    daemon.stop();
}

/// The call eventfd is full. A write to it must not block, which would delay all other clients.
#[test]
fn case_07_a_full_call_descriptor_delays_no_other_client() {
    let server = Wanted::new().export(Source::Ram(1 << 20), 1).start();
    let mut raw = Raw::ready(&server.socket(0));
    let full = eventfd(0);
    full.write(u64::MAX - 1).unwrap();
    raw.frontend.set_vring_call(0, &full).unwrap();
    for sector in 0..10 {
        raw.read_sector(sector);
    }
    drop(raw);
    Raw::ready(&server.socket(0)).read_sector(0);
}

/// One kick eventfd stays readable after each read, and the client empties the other one itself.
#[test]
fn case_08_kicks_of_any_kind_delay_no_other_client() {
    let daemon = Daemon::start("ram=1M", &[]);
    let mut raw = Raw::ready(daemon.socket());
    let semaphore = eventfd(EFD_SEMAPHORE);
    semaphore.write(1 << 40).unwrap();
    raw.frontend.set_vring_kick(0, &semaphore).unwrap();
    for sector in 0..10 {
        raw.read_sector(sector);
    }
    let empty = eventfd(0);
    raw.frontend.set_vring_kick(0, &empty).unwrap();
    for _ in 0..1000 {
        empty.write(1).unwrap();
        // The client or the daemon reads it first. The other one must not block.
        empty.read().unwrap_or_default();
    }
    drop(raw);
    daemon.serves();
    daemon.is_at_rest();
}
