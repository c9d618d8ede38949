//! C28: block sizes, access past the page cache, and the write cache toggle.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

use super::{FileSystem, Image, Loop, failing};
use crate::client::{Client, pattern};
use crate::daemon::Daemon;
use crate::process::complaint;
use crate::raw::{DATA, PROTOCOL, Raw, VERSION_1, WRITE};

const MIB: u64 = 1 << 20;
const CONFIG_WCE: u64 = 1 << 11;
const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;

fn long(config: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(config[at..at + 4].try_into().unwrap())
}

#[test]
fn c28_the_block_size_is_the_one_that_was_named() {
    let image = Image::new(MIB + 5000);
    for disk in [image.disk(), "ram=1M".to_owned(), "null=1M".to_owned()] {
        for (block, exponent, least) in [(512_u32, 3_u8, 8_u8), (4096, 0, 1)] {
            let daemon = Daemon::start(&format!("{disk},block-size={block}"), &[]);
            let mut raw = Raw::ready(daemon.socket());
            assert_ne!(raw.frontend.get_features().unwrap() & TOPOLOGY, 0);
            let config = raw.config();
            assert_eq!(long(&config, 20), block);
            assert_eq!((config[24], config[25], config[26]), (exponent, 0, least));
            assert_eq!(long(&config, 44), block / 512, "discard alignment");
            let sectors = u64::from_le_bytes(config[..8].try_into().unwrap());
            let bytes = if disk.starts_with("path") { MIB + 5000 } else { MIB };
            assert_eq!(sectors * 512, bytes / u64::from(block) * u64::from(block));
            raw.read_sector(0);
            let last = sectors - u64::from(block) / 512;
            assert_eq!(raw.request(0, last, &[(DATA, block)], WRITE), 0);
        }
    }
    let small = Image::new(4095);
    let error = complaint(&[
        "--export",
        &format!("{},block-size=4096,socket={}", small.disk(), small.socket("a")),
    ]);
    assert!(error.contains("at least one block of 4096"), "{error}");
}

/// Returns the number of open files of a daemon with the flag `O_DIRECT`.
fn direct_files(daemon: &Daemon) -> usize {
    let infos = std::fs::read_dir(format!("/proc/{}/fdinfo", daemon.id())).unwrap();
    let is_direct = |text: &String| {
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        u32::from_str_radix(flags.trim(), 8).unwrap() & rustix::fs::OFlags::DIRECT.bits() != 0
    };
    infos
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
        .filter(is_direct)
        .count()
}

/// Returns an image on a file system with direct access.
fn image_with_direct_access(bytes: u64) -> Option<Image> {
    let image = Image::new(bytes);
    image.has_direct_access().then_some(image)
}

#[test]
fn c28_any_request_works_past_the_page_cache() {
    // The end of the image is not at a multiple of its file system's unit.
    let len = 4 * MIB + 1536;
    let Some(image) = image_with_direct_access(len) else {
        return;
    };
    for engine in ["auto", "threads", "sync", "uring"] {
        let daemon = Daemon::start(&format!("{},cache=none", image.disk()), &["--engine", engine]);
        assert_eq!(direct_files(&daemon), 1);
        let mut client = Client::simple(daemon.socket());
        let mut expected = vec![0; len as usize];
        image.file().read_exact_at(&mut expected, 0).unwrap();
        let mut random = crate::seed();
        for round in 0..300 {
            // In every second round, the requests are of whole pages.
            let unit = if round % 2 == 0 { 4096 } else { 512 };
            let size = unit * random.usize(1..=(600 << 10) / unit);
            let most = (len as usize - size) / unit;
            let at = unit * random.usize(0..=most);
            match round % 5 {
                0..=2 => {
                    let data = pattern(random.u64(..), size);
                    client.write(0, at as u64, &data).unwrap();
                    expected[at..at + size].copy_from_slice(&data);
                }
                3 => {
                    client
                        .write_zeroes(0, at as u64, size as u64, random.bool())
                        .unwrap();
                    expected[at..at + size].fill(0);
                }
                _ => assert_eq!(client.read(0, at as u64, size).unwrap(), expected[at..at + size]),
            }
        }
        let tail = len - 512;
        client.write(0, tail, &[3; 512]).unwrap();
        expected[tail as usize..].fill(3);
        client.flush(0).unwrap();
        for at in (0..len - 512).step_by(512 << 10) {
            let size = (len - at).min(512 << 10) as usize;
            let seen = client.read(0, at, size).unwrap();
            assert!(
                seen == expected[at as usize..at as usize + size],
                "at {at} on {engine}"
            );
        }
        let mut stored = vec![0; len as usize];
        image.file().read_exact_at(&mut stored, 0).unwrap();
        assert!(stored == expected, "the file differs on {engine}");
        assert_eq!(
            image.file().metadata().unwrap().len(),
            len,
            "the image keeps its size"
        );
    }
}

/// Single sectors are written through the page cache, and their whole page directly at the same time.
/// Afterwards only those sectors may have the contents of either write.
#[test]
fn c28_small_writes_take_nothing_from_a_direct_one() {
    let image = Image::new(4 * MIB);
    let Some(device) = Loop::attach(&image.path(), &["--sector-size", "4096"]) else {
        return;
    };
    let daemon = Daemon::start(&format!("{},cache=none", device.disk()), &["--engine", "threads"]);
    let mut client = Client::simple(daemon.socket());
    for round in 0..1000_u64 {
        let at = 4096 * (round % 8);
        let (small, page) = (pattern(2 * round, 512), pattern(2 * round + 1, 4096));
        // The buffer of a slot begins at its number times the length.
        for sector in 0..4 {
            client.start_write(0, 60 + sector, at + 1024 * sector as u64, &small);
            if sector == 1 {
                client.start_write(0, 0, at, &page);
            }
        }
        for _ in 0..5 {
            assert_eq!(client.next_done(0).1, 0);
        }
        let seen = client.read(0, at, 4096).unwrap();
        for (number, contents) in seen.chunks(512).enumerate() {
            let is_of_page = contents == &page[512 * number..][..512];
            assert!(
                is_of_page || number % 2 == 0 && contents == small,
                "round {round}: sector {number}"
            );
        }
    }
}

#[test]
fn c28_a_file_system_without_direct_access_is_explained() {
    let Some(system) = FileSystem::mount("ramfs", "mode=0700") else {
        return;
    };
    let path = system.path().join("disk.raw");
    File::create(&path).unwrap().set_len(MIB).unwrap();
    let export = format!(
        "path={},cache=none,socket={}",
        path.display(),
        system.path().join("a").display()
    );
    let child = crate::process::blockd(&["--export", &export]).output();
    let error = String::from_utf8(child.unwrap().stderr).unwrap();
    assert!(error.contains("leave out ',cache=none'"), "{error}");
}

/// A device with blocks of 4,096 bytes accepts no smaller direct transfers.
#[test]
fn c28_a_device_with_4096_byte_blocks_past_the_page_cache() {
    let image = Image::new(4 * MIB);
    let Some(device) = Loop::attach(&image.path(), &["--sector-size", "4096"]) else {
        return;
    };
    let daemon = Daemon::start(&format!("{},cache=none", device.disk()), &[]);
    let mut client = Client::simple(daemon.socket());
    for (round, (at, len)) in [
        (0, 4096),
        (512, 512),
        (4096 - 512, 1024),
        (MIB, 65536),
        (MIB + 512, 65536),
    ]
    .into_iter()
    .enumerate()
    {
        let data = pattern(round as u64, len);
        client.write(0, at, &data).unwrap();
        assert_eq!(client.read(0, at, len).unwrap(), data, "{len} bytes at {at}");
    }
    client.flush(0).unwrap();
}

/// Connects with these features and those that every client of the tests has.
fn with_features(daemon: &Daemon, features: u64) -> Raw {
    let raw = Raw::connect(daemon.socket());
    raw.frontend
        .set_features(VERSION_1 | PROTOCOL | features)
        .unwrap();
    raw
}

fn set_write_cache(raw: &mut Raw, on: u8) -> bool {
    let flags = VhostUserConfigFlags::WRITABLE;
    raw.frontend.set_config(32, flags, &[on]).is_ok()
}

/// Every `fdatasync` fails, so a write that must be on the medium fails too.
#[test]
fn c28_without_a_write_cache_a_write_is_on_the_medium() {
    let image = Image::new(MIB);
    let Some(daemon) = failing(&["fdatasync:error=EIO"], &image.disk()) else {
        return;
    };
    let mut raw = with_features(&daemon, FLUSH | CONFIG_WCE);
    raw.set_up(0);
    raw.frontend.set_vring_enable(0, true).unwrap();
    assert_eq!(raw.config()[32], 1);
    raw.put(DATA, &[5; 512]);
    assert_eq!(raw.request(1, 1, &[(DATA, 512)], 0), 0);
    assert!(set_write_cache(&mut raw, 0));
    assert_eq!(raw.config()[32], 0);
    assert_eq!(raw.request(1, 1, &[(DATA, 512)], 0), 1);
    assert!(set_write_cache(&mut raw, 1));
    assert_eq!(raw.request(1, 1, &[(DATA, 512)], 0), 0);
    // The next client begins with the write cache on.
    drop(raw);
    let mut raw = with_features(&daemon, FLUSH | CONFIG_WCE);
    assert_eq!(raw.config()[32], 1);
}

#[test]
fn c28_other_changes_of_the_configuration_are_refused() {
    let daemon = Daemon::start("ram=1M", &[]);
    let flags = VhostUserConfigFlags::WRITABLE;
    for (features, offset, bytes) in [
        (CONFIG_WCE, 0, &[1_u8][..]),
        (CONFIG_WCE, 32, &[2][..]),
        (CONFIG_WCE, 32, &[1, 1][..]),
        (CONFIG_WCE, 33, &[1][..]),
        (0, 32, &[0][..]),
    ] {
        let mut raw = with_features(&daemon, features);
        assert!(raw.frontend.set_config(offset, flags, bytes).is_err());
        drop(raw);
    }
    let read_only = Daemon::start("ram=1M,readonly", &[]);
    let raw = Raw::connect(read_only.socket());
    assert_eq!(raw.frontend.get_features().unwrap() & CONFIG_WCE, 0);
    daemon.serves();
}

#[test]
fn c28_the_page_cache_stays_empty() {
    let Some(image) = image_with_direct_access(8 * MIB) else {
        return;
    };
    let Some(mut fincore) = super::tool("fincore") else {
        return;
    };
    let daemon = Daemon::start(&format!("{},cache=none", image.disk()), &[]);
    let mut client = Client::simple(daemon.socket());
    for at in 0..8 {
        client.write(0, at * MIB, &pattern(at, MIB as usize)).unwrap();
        client.read(0, at * MIB, MIB as usize).unwrap();
    }
    let output = fincore
        .args(["--bytes", "--noheadings", "--output", "RES"])
        .arg(image.path())
        .output()
        .unwrap();
    let resident: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(resident < MIB, "{resident} bytes are in the page cache");
}
