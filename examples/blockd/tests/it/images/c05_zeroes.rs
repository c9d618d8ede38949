//! C5: zeroes are written and discards succeed, even if the file system refuses `fallocate`.

use super::{FileSystem, Image, failing};
use crate::client::Client;
use crate::daemon::Daemon;

const LEN: usize = 64 * 1024;

#[test]
fn c5_zeroes_without_fallocate() {
    for error in [
        "EBUSY",
        "EOPNOTSUPP",
        "EINVAL",
        "EPERM",
        "EIO",
        "ETXTBSY",
        "ENOSPC",
    ] {
        let image = Image::new(1 << 20);
        let fault = format!("fallocate:error={error}");
        let Some(daemon) = failing(&[&fault], &image.disk()) else {
            return;
        };
        let mut client = Client::simple(daemon.socket());
        for unmap in [false, true] {
            client.write(0, 0, &[9; LEN]).unwrap();
            let zeroed = client.write_zeroes(0, 4096, LEN as u64 - 8192, unmap);
            assert_eq!(zeroed, Ok(()), "{error}, unmap: {unmap}");
            let seen = client.read(0, 0, LEN).unwrap();
            assert_eq!(seen[..4096], [9; 4096]);
            assert!(
                seen[4096..LEN - 4096].iter().all(|byte| *byte == 0),
                "{error}, unmap: {unmap}"
            );
            assert_eq!(seen[LEN - 4096..], [9; 4096]);
        }
        assert_eq!(client.discard(0, 0, LEN as u64), Ok(()), "{error}");
        assert_eq!(client.discard(0, 0, LEN as u64), Ok(()), "{error}");
        drop(client);
        let log = daemon.stop();
        assert_eq!(log.matches("discards have no effect").count(), 1, "{log}");
    }
}

/// The file system has no holes.
#[test]
fn c5_zeroes_on_a_file_system_without_fallocate() {
    for engine in ["auto", "uring", "threads", "sync"] {
        let Some(system) = FileSystem::mount("ramfs", "mode=0700") else {
            return;
        };
        let path = system.path().join("disk.raw");
        std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let disk = format!("path={}", path.display());
        let daemon = Daemon::start(&disk, &["--engine", engine]);
        let mut client = Client::simple(daemon.socket());
        for unmap in [false, true] {
            client.write(0, 0, &[9; LEN]).unwrap();
            client.write_zeroes(0, 4096, LEN as u64 - 8192, unmap).unwrap();
            let seen = client.read(0, 0, LEN).unwrap();
            assert_eq!(seen[..4096], [9; 4096]);
            assert!(
                seen[4096..LEN - 4096].iter().all(|byte| *byte == 0),
                "{engine}, {unmap}"
            );
            assert_eq!(seen[LEN - 4096..], [9; 4096]);
        }
        for _ in 0..2 {
            client.discard(0, 0, LEN as u64).unwrap();
        }
        drop(client);
        let log = daemon.stop();
        assert_eq!(
            log.matches("discards have no effect").count(),
            1,
            "{engine}: {log}"
        );
    }
}

/// With `discard=off`, discards are neither offered nor executed, and zeroes keep their storage.
#[test]
fn c5_discards_can_be_switched_off() {
    use crate::raw::{DATA, Raw};
    use virtio_driver::VirtioBlkFeatureFlags;

    let image = Image::new(1 << 20);
    let daemon = Daemon::start(&(image.disk() + ",discard=off"), &[]);
    let mut client = Client::simple(daemon.socket());
    assert!(!client.features().contains(VirtioBlkFeatureFlags::DISCARD));
    assert!(client.features().contains(VirtioBlkFeatureFlags::WRITE_ZEROES));
    client.write(0, 0, &[9; LEN]).unwrap();
    client.flush(0).unwrap();
    let before = image.allocated();
    client.write_zeroes(0, 0, LEN as u64, true).unwrap();
    assert_eq!(client.read(0, 0, LEN).unwrap(), [0; LEN]);
    client.flush(0).unwrap();
    assert!(image.allocated() >= before, "zeroes keep their place");
    drop(client);
    // A driver that discards nevertheless gets the status "unsupported".
    let mut raw = Raw::ready(daemon.socket());
    raw.put(DATA, &[0u64.to_le_bytes(), 8u64.to_le_bytes()].concat());
    assert_eq!(raw.request(11, 0, &[(DATA, 16)], 0), 2);
}
