//! Reads, writes and the other requests, in all ways in which a driver can send them.

use std::time::Duration;

use aio_context::BackendKind;
use blockd::Source;
use virtio_driver::VirtioBlkFeatureFlags;

use crate::client::{Client, EVERY_WAY, Indexes, QUEUE_SIZE, Waits, pattern};
use crate::server::{Server, Wanted};

const EIO: i32 = -5;

fn exercise(client: &mut Client, queues: usize) {
    let size = client.capacity();
    for queue in 0..queues {
        let at = queue as u64 * 8192;
        let text = pattern(queue as u64, 8192);
        client.write(queue, at, &text).unwrap();
        client.flush(queue).unwrap();
        assert_eq!(client.read(queue, at, 8192).unwrap(), text);
        assert_eq!(client.read(queue, at + 512, 512).unwrap(), text[512..1024]);
    }
    for queue in 0..queues {
        let other = queues - 1 - queue;
        assert_eq!(
            client.read(queue, other as u64 * 8192, 8192).unwrap(),
            pattern(other as u64, 8192)
        );
    }
    assert_eq!(client.read(0, size, 512), Err(EIO));
    assert_eq!(client.write(0, size - 512, &[0; 1024]), Err(EIO));
    client.write(0, size - 512, &[7; 512]).unwrap();
    assert_eq!(client.read(0, size - 512, 512).unwrap(), [7; 512]);
}

#[test]
fn written_data_is_read_every_way() {
    for poll_max in [
        Duration::ZERO,
        Duration::from_micros(32),
        Duration::from_millis(5),
    ] {
        for (indexes, waits) in EVERY_WAY {
            let server = Wanted::new()
                .export(Source::Ram(1 << 20), 4)
                .polling(poll_max)
                .start();
            let mut client = Client::connect(&server.socket(0), 4, indexes, waits);
            exercise(&mut client, 4);
        }
    }
}

#[test]
fn on_every_backend() {
    for backend in BackendKind::ALL {
        let server = Wanted::new()
            .export(Source::Ram(1 << 20), 2)
            .backend(backend)
            .start();
        let mut client = Client::connect(&server.socket(0), 2, Indexes::With, Waits::ForEvents);
        exercise(&mut client, 2);
    }
}

#[test]
fn an_image_file_keeps_its_data_and_its_size() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let source = Source::File(image.path().to_owned());
    let server = Wanted::new().export(source.clone(), 2).start();
    let mut client = Client::connect(&server.socket(0), 2, Indexes::With, Waits::ForEvents);
    exercise(&mut client, 2);
    drop((client, server));
    let bytes = std::fs::read(image.path()).unwrap();
    assert_eq!(bytes.len(), 1 << 20);
    assert_eq!(bytes[..8192], pattern(0, 8192));
    assert_eq!(bytes[(1 << 20) - 512..], [7; 512]);

    let server = Wanted::new().export(source, 1).readonly().start();
    let mut client = Client::connect(&server.socket(0), 1, Indexes::With, Waits::Spinning);
    assert!(client.features().contains(VirtioBlkFeatureFlags::RO));
    assert_eq!(client.read(0, 0, 8192).unwrap(), pattern(0, 8192));
    assert_eq!(client.write(0, 0, &[1; 512]), Err(EIO));
    assert_eq!(client.write_zeroes(0, 0, 512, true), Err(EIO));
    client.flush(0).unwrap();
    drop((client, server));
    assert_eq!(std::fs::read(image.path()).unwrap(), bytes);
}

#[test]
fn discards_and_zeroes() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    for source in [Source::Ram(1 << 20), Source::File(image.path().to_owned())] {
        let server = Wanted::new().export(source, 1).start();
        let mut client = Client::connect(&server.socket(0), 1, Indexes::With, Waits::Spinning);
        let wanted = VirtioBlkFeatureFlags::DISCARD | VirtioBlkFeatureFlags::WRITE_ZEROES;
        assert!(client.features().contains(wanted));
        for unmap in [false, true] {
            client.write(0, 0, &[9; 3 * 4096]).unwrap();
            client.write_zeroes(0, 4096, 4096, unmap).unwrap();
            let seen = client.read(0, 0, 3 * 4096).unwrap();
            assert_eq!(seen, [[9; 4096], [0; 4096], [9; 4096]].concat());
        }
        client.discard(0, 8192, 4096).unwrap();
        assert_eq!(
            client.read(0, 0, 4096).unwrap(),
            [9; 4096],
            "the neighbouring data stays"
        );
        assert_eq!(client.discard(0, 1 << 20, 512), Err(EIO));
        assert_eq!(client.write_zeroes(0, (1 << 20) - 512, 1024, false), Err(EIO));
        assert_eq!(client.discard(0, 0, 8 << 20), Err(EIO), "more than was offered");
    }
}

#[test]
fn a_null_disk_answers_and_leaves_the_buffer_alone() {
    let server = Wanted::new().export(Source::Null(1 << 30), 1).start();
    let mut client = Client::connect(&server.socket(0), 1, Indexes::With, Waits::Spinning);
    assert_eq!(client.capacity(), 1 << 30);
    client.write(0, 0, &[1; 4096]).unwrap();
    assert_eq!(client.read(0, 0, 4096).unwrap(), [0xa5; 4096]);
    assert_eq!(client.read(0, 1 << 30, 512), Err(EIO));
}

/// As many requests as fit into the queue are outstanding, and each reads its own sector.
#[test]
fn a_deep_queue() {
    for poll_max in [Duration::ZERO, Duration::from_micros(32)] {
        for (indexes, waits) in EVERY_WAY {
            let server = Wanted::new()
                .export(Source::Ram(1 << 20), 1)
                .polling(poll_max)
                .start();
            let mut client = Client::connect(&server.socket(0), 1, indexes, waits);
            for sector in 0..64 {
                client.write(0, sector * 512, &pattern(sector, 512)).unwrap();
            }
            // The header, the buffer and the status take three descriptors.
            let depth = usize::from(QUEUE_SIZE) / 3;
            for slot in 0..depth {
                client.start_read(0, slot, slot as u64 * 512, 512);
            }
            for sector in depth as u64..2000 {
                let (slot, status) = client.next_done(0);
                assert_eq!(status, 0);
                let before = sector_of(&client, slot);
                assert!(before < 64, "slot {slot} holds the contents of no sector");
                client.start_read(0, slot, sector % 64 * 512, 512);
            }
            for _ in 0..depth {
                assert_eq!(client.next_done(0).1, 0);
            }
        }
    }
}

fn sector_of(client: &Client, slot: usize) -> u64 {
    let contents = client.contents(slot, 512);
    (0..64)
        .find(|sector| pattern(*sector, 512) == contents)
        .unwrap_or(u64::MAX)
}

#[test]
fn exports_do_not_mix() {
    let mut wanted = Wanted::new();
    for _ in 0..5 {
        wanted = wanted.export(Source::Ram(1 << 20), 1);
    }
    let server = wanted.start();
    let connect = |export| Client::simple(&server.socket(export));
    let mut clients: Vec<Client> = (0..5).map(connect).collect();
    for (seed, client) in clients.iter_mut().enumerate() {
        client.write(0, 0, &pattern(seed as u64, 4096)).unwrap();
    }
    for (seed, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read(0, 0, 4096).unwrap(), pattern(seed as u64, 4096));
    }
}

#[test]
fn it_stops_with_clients_connected() {
    let server = Server::simple();
    let mut client = Client::connect(&server.socket(0), 1, Indexes::With, Waits::Spinning);
    client.write(0, 0, &[1; 512]).unwrap();
    let directory = server.stop();
    assert!(!directory.join("0.sock").exists());
}
