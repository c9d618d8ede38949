//! C23: a guest with as many memory regions as QEMU allows, and many such clients.

use std::fs::File;
use std::os::fd::AsRawFd;

use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};
use vm_memory::{Bytes, VolatileMemory};

use crate::client::{pattern, shared};
use crate::daemon::Daemon;
use crate::raw::Raw;
use crate::server::Server;

const SLOTS: u64 = 509;
/// A guest address beyond the memory of [`Raw`].
const FIRST: u64 = 0x1_0000_0000;
const LEN: usize = 0x2000;

/// Returns the guest address of a slot. There is one unused page between two slots.
fn at(slot: u64) -> u64 {
    FIRST + slot * 0x3000
}

/// Connects, and shares as many regions as the daemon allows.
fn full(socket: &std::path::Path) -> Raw {
    let mut raw = Raw::ready_with(socket, VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);
    assert_eq!(raw.frontend.get_max_mem_slots().unwrap(), SLOTS);
    // One region is already shared.
    for slot in 1..SLOTS {
        raw.share(at(slot), LEN);
    }
    raw
}

#[test]
fn c23_requests_reach_each_of_509_regions() {
    let (server, mut bystander) = Server::with_bystander();
    let mut raw = Raw::ready_with(&server.socket(0), VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);
    let regions: Vec<_> = (1..SLOTS).map(|slot| raw.share(at(slot), LEN)).collect();
    for (slot, (_, memory)) in (1..).zip(&regions) {
        let memory = memory.as_volatile_slice();
        memory.write_slice(&pattern(slot, 512), 512).unwrap();
        assert_eq!(raw.request(1, slot, &[(at(slot) + 512, 512)], 0), 0);
        // The region moves back, to the end of another one.
        let (_, other) = &regions[regions.len() - slot as usize];
        let to = at(SLOTS - slot) + LEN as u64 - 512;
        assert_eq!(raw.request(0, slot, &[(to, 512)], crate::raw::WRITE), 0);
        let mut read = vec![0; 512];
        other
            .as_volatile_slice()
            .read_slice(&mut read, LEN - 512)
            .unwrap();
        assert_eq!(read, pattern(slot, 512));
        // There is no memory between two regions.
        assert_eq!(
            raw.request(0, 0, &[(at(slot) + LEN as u64, 512)], crate::raw::WRITE),
            1
        );
    }
    let (file, _memory) = shared(LEN);
    assert!(raw.frontend.add_mem_region(&region(&file, at(SLOTS))).is_err());
    raw.wait_closed();
    bystander.is_served();
}

fn region(file: &File, guest: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: guest,
        memory_size: LEN as u64,
        userspace_addr: guest,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

#[test]
fn c23_twenty_clients_of_509_regions_each() {
    let directory = tempfile::tempdir().unwrap();
    let sockets: Vec<_> = (0..20)
        .map(|n| directory.path().join(format!("{n}.sock")))
        .collect();
    let exports: Vec<String> = sockets[1..]
        .iter()
        .map(|socket| format!("ram=1M,socket={}", socket.display()))
        .collect();
    let mut args = Vec::new();
    for export in &exports {
        args.extend(["--export", export]);
    }
    let daemon = Daemon::start("ram=1M", &args);
    let before = daemon.settled();
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if most.is_some_and(|most| most < 12_000) {
        println!("skipped: at most {most:?} open files are allowed");
        return;
    }
    let mut clients = vec![full(daemon.socket())];
    clients.extend(sockets[1..].iter().map(|socket| full(socket)));
    for client in &mut clients {
        assert_eq!(client.read_sector(0), [0; 512]);
    }
    drop(clients);
    daemon.holds_the_same_as(before);
}
