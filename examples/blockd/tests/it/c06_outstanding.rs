//! The next daemon completes the requests that were outstanding when a daemon was killed.

use std::path::Path;
use std::process::Child;

use rustix::process::{Pid, Signal, WaitIdOptions, kill_process, waitid};

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserProtocolFeatures;

use crate::process::{ready, terminate};
use crate::raw::{EVENT_IDX, PROTOCOL, Raw, VERSION_1};

const OUTSTANDING: u16 = 3;

fn start(directory: &Path, polling: &str) -> Child {
    start_with(directory, polling, &crate::engine())
}

fn start_with(directory: &Path, polling: &str, engine: &str) -> Child {
    let at = |name: &str| directory.join(name).display().to_string();
    let export = format!("path={},socket={}", at("image"), at("a.sock"));
    ready(&["--export", &export, "--poll-max", polling, "--engine", engine])
}

/// Stops a process, and returns once it has stopped.
fn freeze(child: &Child) {
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::STOP).unwrap();
    waitid(rustix::process::WaitId::Pid(pid), WaitIdOptions::STOPPED).unwrap();
}

/// The base that a client sets for its queue when it reconnects.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// The used index, like QEMU.
    Used,
    /// The available index, like cloud-hypervisor.
    Available,
}

/// Three requests are offered and kicked while the daemon is stopped. The daemon is killed, and the next one
/// completes them and calls.
fn are_completed(base: Base, features: u64, polling: &str, is_tracked: bool) {
    println!("{base:?} {features:#x} {polling} {is_tracked}");
    let directory = tempfile::tempdir().unwrap();
    let image: Vec<u8> = (0..64).flat_map(|sector| [sector as u8; 512]).collect();
    std::fs::write(directory.path().join("image"), image).unwrap();
    let socket = directory.path().join("a.sock");
    let mut first = start(directory.path(), polling);
    let mut raw = Raw::connect_with(&socket, VhostUserProtocolFeatures::INFLIGHT_SHMFD);
    if is_tracked {
        raw.get_inflight(1);
    }
    raw.reconnect(&socket, features, 0);
    for sector in [1, 2] {
        raw.ask_for_call();
        assert_eq!(raw.read_sector(sector), [sector as u8; 512]);
    }
    raw.ask_for_call();
    freeze(&first);
    for slot in 0..OUTSTANDING {
        let head = raw.prepare_read(slot, 10 + u64::from(slot));
        raw.offer(head);
    }
    // Calls of the first daemon do not count.
    drop(raw.call.read());
    first.kill().unwrap();
    first.wait().unwrap();
    let second = start(directory.path(), polling);
    let base = match base {
        Base::Used => raw.used(),
        Base::Available => raw.offered(),
    };
    raw.reconnect(&socket, features, base);
    raw.wait_used(2 + OUTSTANDING);
    raw.wait_called();
    let mut used: Vec<_> = (0..OUTSTANDING).map(|slot| raw.used_entry(2 + slot)).collect();
    if is_tracked {
        used.sort_unstable();
    }
    for (slot, used) in (0..OUTSTANDING).zip(used) {
        assert_eq!(raw.contents(slot), [10 + slot as u8; 512]);
        assert_eq!(used, (3 * u32::from(slot), 513));
    }
    assert_eq!(raw.read_sector(20), [20; 512]);
    assert_eq!(raw.frontend.get_vring_base(0).unwrap(), 6);
    terminate(second);
}

fn in_every_way(base: Base) {
    for features in [VERSION_1 | PROTOCOL, VERSION_1 | PROTOCOL | EVENT_IDX, VERSION_1] {
        for polling in ["0", "100us"] {
            are_completed(base, features, polling, false);
            are_completed(base, features, polling, true);
        }
    }
}

#[test]
fn c6_for_a_client_that_names_the_used_index() {
    in_every_way(Base::Used);
}

#[test]
fn c6_for_a_client_that_names_the_available_index() {
    in_every_way(Base::Available);
}

/// A daemon is killed repeatedly while a client reads and writes. Every request completes.
#[test]
fn c6_a_daemon_that_is_killed_again_and_again() {
    let mut random = crate::seed();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("image"), vec![7; 64 * 512]).unwrap();
    let socket = directory.path().join("a.sock");
    let mut daemon = start(directory.path(), "50us");
    let mut raw = Raw::connect(&socket);
    let features = VERSION_1 | PROTOCOL | EVENT_IDX;
    raw.reconnect(&socket, features, 0);
    for _ in 0..30 {
        for _ in 0..random.u8(..3) {
            raw.ask_for_call();
            assert_eq!(raw.read_sector(3), [7; 512]);
        }
        raw.ask_for_call();
        let count = random.u16(1..5);
        for slot in 0..count {
            let head = raw.prepare_read(slot, 5);
            raw.offer(head);
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        drop(raw.call.read());
        let used = raw.used();
        let outstanding = raw.offered().wrapping_sub(used);
        daemon = start(directory.path(), "50us");
        raw.reconnect(&socket, features, used.wrapping_add(random.u16(..=outstanding)));
        raw.wait_used(raw.offered());
        raw.wait_called();
        for slot in 0..count {
            assert_eq!(raw.contents(slot), [7; 512]);
        }
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// Returns the contents of a sector after `version` writes.
fn written(sector: u64, version: u64) -> Vec<u8> {
    [sector, version]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .cycle()
        .take(512)
        .collect()
}

/// A daemon is killed a hundred times while its client writes. No acknowledged write is lost, and no write
/// hangs.
#[test]
fn c6_a_daemon_that_is_killed_under_writes() {
    const SECTORS: u64 = 32;
    for engine in ["uring", "threads", "sync"] {
        let mut random = crate::seed();
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let mut versions = vec![0; SECTORS as usize];
        let start = || start_with(directory.path(), "50us", engine);
        let contents = |versions: &[u64]| -> Vec<u8> {
            (0..SECTORS)
                .flat_map(|sector| written(sector, versions[sector as usize]))
                .collect()
        };
        std::fs::write(&image, contents(&versions)).unwrap();
        let socket = directory.path().join("a.sock");
        let features = VERSION_1 | PROTOCOL | EVENT_IDX;
        let mut daemon = start();
        let mut raw = Raw::connect(&socket);
        raw.reconnect(&socket, features, 0);
        for _ in 0..50 {
            for _ in 0..random.u8(..4) {
                write_some(&mut raw, &mut versions, &mut random);
                raw.wait_used(raw.offered());
            }
            write_some(&mut raw, &mut versions, &mut random);
            for _ in 0..random.u32(..20_000) {
                std::hint::spin_loop();
            }
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            let used = raw.used();
            let outstanding = raw.offered().wrapping_sub(used);
            daemon = start();
            raw.reconnect(&socket, features, used.wrapping_add(random.u16(..=outstanding)));
            raw.wait_used(raw.offered());
            assert_eq!(std::fs::read(&image).unwrap(), contents(&versions), "{engine}");
        }
        terminate(daemon);
    }
}

/// Offers one to five writes of different sectors.
fn write_some(raw: &mut Raw, versions: &mut [u64], random: &mut fastrand::Rng) {
    let mut sectors: Vec<usize> = (0..versions.len()).collect();
    random.shuffle(&mut sectors);
    for (slot, sector) in (0..random.u16(1..=5)).zip(sectors) {
        versions[sector] += 1;
        let head = raw.prepare_write(slot, sector as u64, &written(sector as u64, versions[sector]));
        raw.offer(head);
    }
}
