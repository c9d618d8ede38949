//! C15: images that are odd, change while they are served, or are full.

use virtio_driver::VirtioBlkFeatureFlags;

use super::{FileSystem, Image, Loop};
use crate::client::{Client, pattern};
use crate::daemon::Daemon;
use crate::process::complaint;

const EIO: i32 = -5;

fn connect(daemon: &Daemon) -> Client {
    Client::simple(daemon.socket())
}

#[test]
fn c15_an_image_that_shrinks_while_it_is_served() {
    let image = Image::new(1 << 20);
    let daemon = Daemon::start(&image.disk(), &[]);
    let mut client = connect(&daemon);
    client.write(0, 0, &pattern(1, 8192)).unwrap();
    let file = std::fs::File::options().write(true).open(image.path()).unwrap();
    file.set_len(4096).unwrap();
    assert_eq!(client.read(0, 0, 4096).unwrap(), pattern(1, 8192)[..4096]);
    for at in [4096, 8192, (1 << 20) - 512] {
        assert_eq!(client.read(0, at, 512), Err(EIO), "at {at}");
    }
    assert_eq!(client.read(0, 3584, 1024), Err(EIO), "half of it is gone");
    client.discard(0, 0x8000, 4096).unwrap();
    // Data that are written or zeroed there can be read again.
    client.write(0, 8192, &pattern(2, 4096)).unwrap();
    assert_eq!(client.read(0, 8192, 4096).unwrap(), pattern(2, 4096));
    for (at, unmap) in [(0x1_0000, true), (0x2_0000, false)] {
        client.write_zeroes(0, at, 4096, unmap).unwrap();
        assert_eq!(client.read(0, at, 4096).unwrap(), [0; 4096], "unmap: {unmap}");
    }
    client.flush(0).unwrap();
    drop(client);
    let log = daemon.stop();
    assert!(log.contains("shorter than it was"), "{log}");
    assert!(std::fs::metadata(image.path()).unwrap().len() <= 1 << 20);
}

#[test]
fn c15_an_image_on_a_full_file_system() {
    let Some(system) = FileSystem::mount("tmpfs", "size=1M") else {
        return;
    };
    let path = system.path().join("disk.raw");
    std::fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let daemon = Daemon::start(&format!("path={}", path.display()), &[]);
    let mut client = connect(&daemon);
    let block = vec![3; 256 * 1024];
    let mut taken = 0;
    while client.write(0, taken * block.len() as u64, &block).is_ok() {
        taken += 1;
        assert!(taken < 5, "a file system of 1 MiB takes {taken} blocks");
    }
    assert!(taken > 0);
    let beyond = (taken + 1) * block.len() as u64;
    assert_eq!(client.write(0, beyond, &block), Err(EIO));
    assert_eq!(
        client.read(0, 0, block.len()).unwrap(),
        block,
        "the accepted data is there"
    );
    client.flush(0).unwrap();
    // The guest releases space, and the host adds some.
    client.discard(0, 0, block.len() as u64).unwrap();
    client.write(0, 0, &block).unwrap();
    system.grow("4M");
    client.write(0, beyond, &block).unwrap();
    assert_eq!(client.read(0, beyond, block.len()).unwrap(), block);
    client.flush(0).unwrap();
    drop(client);
    let log = daemon.stop();
    assert!(log.contains("No space left on device"), "{log}");
}

#[test]
fn c15_sizes_that_are_no_whole_sectors() {
    for (bytes, offered) in [(512, 512), (513, 512), (1023, 512), (1_000_000, 999_936)] {
        let image = Image::new(bytes);
        let daemon = Daemon::start(&image.disk(), &[]);
        let mut client = connect(&daemon);
        assert_eq!(client.capacity(), offered);
        let last = offered - 512;
        client.write(0, last, &pattern(3, 512)).unwrap();
        assert_eq!(client.read(0, last, 512).unwrap(), pattern(3, 512));
        assert_eq!(client.write(0, last, &[0; 1024]), Err(EIO));
        client.write_zeroes(0, last, 512, true).unwrap();
        client.discard(0, last, 512).unwrap();
        assert_eq!(client.read(0, offered, 512), Err(EIO));
        drop(client);
        let log = daemon.stop();
        assert_eq!(log.contains("not a whole sector"), bytes != offered, "{log}");
        assert_eq!(std::fs::metadata(image.path()).unwrap().len(), bytes);
    }
}

#[test]
fn c15_eight_terabytes() {
    const SIZE: u64 = 8 << 40;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    if let Err(error) = std::fs::File::create(&path).unwrap().set_len(SIZE) {
        println!("skipped: this file system has no files of 8 TiB: {error}");
        return;
    }
    let daemon = Daemon::start(&format!("path={}", path.display()), &[]);
    let mut client = connect(&daemon);
    assert_eq!(client.capacity(), SIZE);
    let places = [
        (1, 0),
        (2, 1 << 32),
        (3, (2 << 40) - 4096),
        (4, (4 << 40) + 512),
        (5, SIZE - 4096),
    ];
    for (seed, at) in places {
        client.write(0, at, &pattern(seed, 4096)).unwrap();
    }
    for (seed, at) in places {
        assert_eq!(client.read(0, at, 4096).unwrap(), pattern(seed, 4096), "at {at}");
    }
    assert_eq!(client.write(0, SIZE - 512, &[0; 1024]), Err(EIO));
    client.write_zeroes(0, SIZE - 4096, 4096, false).unwrap();
    assert_eq!(client.read(0, SIZE - 4096, 4096).unwrap(), [0; 4096]);
}

/// On a device of 4,096-byte sectors, requests of any number of 512-byte sectors work.
#[test]
fn c15_a_device_of_large_sectors() {
    let image = Image::new(4 << 20);
    let Some(device) = Loop::attach(&image.path(), &["--sector-size", "4096"]) else {
        return;
    };
    let daemon = Daemon::start(&device.disk(), &[]);
    let mut client = connect(&daemon);
    assert_eq!(client.capacity(), 4 << 20);
    let text = pattern(6, 5 * 4096);
    client.write(0, 0, &text).unwrap();
    client.write(0, 512, &[1; 512]).unwrap();
    assert_eq!(client.read(0, 0, 512).unwrap(), text[..512]);
    assert_eq!(
        client.read(0, 512, 1024).unwrap(),
        [&[1; 512], &text[1024..1536]].concat()
    );
    for unmap in [false, true] {
        client.write(0, 0, &text).unwrap();
        // The range has half a block, two whole blocks, and half a block.
        client.write_zeroes(0, 2048, 3 * 4096, unmap).unwrap();
        let seen = client.read(0, 0, text.len()).unwrap();
        assert_eq!(seen[..2048], text[..2048]);
        assert!(
            seen[2048..2048 + 3 * 4096].iter().all(|byte| *byte == 0),
            "unmap: {unmap}"
        );
        assert_eq!(seen[2048 + 3 * 4096..], text[2048 + 3 * 4096..]);
    }
    if !client.features().contains(VirtioBlkFeatureFlags::DISCARD) {
        println!("skipped: loop devices do not discard here");
        return;
    }
    client.write(0, 0, &text).unwrap();
    client.discard(0, 2048, 4096).unwrap();
    assert_eq!(
        client.read(0, 0, text.len()).unwrap(),
        text,
        "no whole block was discarded"
    );
    client.discard(0, 512, 4 << 12).unwrap();
    assert_eq!(client.read(0, 0, 4096).unwrap(), text[..4096]);
    client.flush(0).unwrap();
}

#[test]
fn c15_images_that_cannot_be_written_are_read_only() {
    let image = Image::new(1 << 20);
    std::fs::write(image.path(), pattern(7, 1 << 20)).unwrap();
    let Some(device) = Loop::attach(&image.path(), &["--read-only"]) else {
        return;
    };
    let export = format!("{},socket={}", device.disk(), image.socket("a.sock"));
    let said = complaint(&["--export", &export]);
    assert!(said.contains("add ',readonly' to only read it"), "{said}");
    let daemon = Daemon::start(&(device.disk() + ",readonly"), &[]);
    let mut client = connect(&daemon);
    assert_eq!(
        client.read(0, 4096, 4096).unwrap(),
        pattern(7, 1 << 20)[4096..8192]
    );
    assert_eq!(client.write(0, 0, &[0; 512]), Err(EIO));
    assert_eq!(client.write_zeroes(0, 0, 512, true), Err(EIO));
    client.flush(0).unwrap();
}
