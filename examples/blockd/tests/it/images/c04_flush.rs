//! C4: after a failed flush, no flush succeeds.

use super::{Image, Overcommitted, failing};
use crate::client::{Client, pattern};
use crate::daemon::Daemon;
use crate::raw::{DATA, Raw};

const EIO: i32 = -5;

#[test]
fn c4_a_failed_flush_is_never_forgotten() {
    let image = Image::new(1 << 20);
    let Some(daemon) = failing(&["fdatasync:error=EIO:when=1"], &image.disk()) else {
        return;
    };
    let connect = || Client::simple(daemon.socket());
    let mut client = connect();
    client.write(0, 0, &pattern(1, 4096)).unwrap();
    for _ in 0..3 {
        assert_eq!(client.flush(0), Err(EIO));
    }
    // Reads and writes continue, and the guest decides how to react.
    client.write(0, 4096, &pattern(2, 4096)).unwrap();
    assert_eq!(client.read(0, 4096, 4096).unwrap(), pattern(2, 4096));
    drop(client);
    let mut next = connect();
    assert_eq!(
        next.flush(0),
        Err(EIO),
        "a client that comes later must learn of it, too"
    );
    drop(next);
    let log = daemon.stop();
    assert_eq!(log.matches("may be lost").count(), 1, "{log}");
    assert!(log.contains("restart the daemon"), "{log}");
    assert!(log.contains(&*image.path().to_string_lossy()), "{log}");

    let daemon = Daemon::start(&image.disk(), &[]);
    let mut client = Client::simple(daemon.socket());
    client.flush(0).unwrap();
}

/// The device loses written data, and accepts writes again later. With every engine a flush fails, and so do
/// all later ones.
#[test]
fn c4_a_flush_of_a_device_that_loses_data_is_never_forgotten() {
    const LEN: usize = 1 << 20;
    for engine in ["auto", "uring", "threads", "sync"] {
        let Some(device) = Overcommitted::attach() else {
            return;
        };
        let daemon = Daemon::start(&device.disk(), &["--engine", engine]);
        let mut client = Client::simple(daemon.socket());
        client.flush(0).unwrap();
        for at in 0..8 {
            client
                .write(0, (at * LEN) as u64, &pattern(at as u64, LEN))
                .unwrap();
        }
        // Several flushes run at a time, and the system reports the error to only one of them.
        for slot in 0..8 {
            client.start_flush(0, slot);
        }
        let failed = (0..8).filter(|_| client.next_done(0).1 != 0).count();
        assert_eq!(failed, 8, "with --engine {engine}");
        device.grow();
        client.write(0, 0, &pattern(9, LEN)).unwrap();
        assert_eq!(client.flush(0), Err(EIO), "with --engine {engine}");
        assert_eq!(client.read(0, 0, LEN).unwrap(), pattern(9, LEN));
        drop(client);
        // This driver does not flush, so every write is flushed.
        let mut raw = Raw::ready(daemon.socket());
        assert_eq!(raw.request(1, 0, &[(DATA, 512)], 0), 1, "with --engine {engine}");
        raw.read_sector(0);
        drop(raw);
        let log = daemon.stop();
        assert_eq!(log.matches("may be lost").count(), 1, "{log}");
    }
}

/// The driver does not flush, so every write is flushed.
#[test]
fn c4_a_failed_flush_of_a_write_is_not_forgotten_either() {
    for error in ["EIO", "ENOSPC", "EDQUOT"] {
        let image = Image::new(1 << 20);
        let fault = format!("fdatasync:error={error}:when=1");
        let Some(daemon) = failing(&[&fault], &image.disk()) else {
            return;
        };
        let mut raw = Raw::ready(daemon.socket());
        for _ in 0..3 {
            assert_eq!(raw.request(1, 0, &[(DATA, 512)], 0), 1);
        }
        raw.read_sector(0);
    }
}
