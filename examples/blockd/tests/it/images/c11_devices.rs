//! C11: discards on block devices reach the device, or are not offered.

use virtio_driver::VirtioBlkFeatureFlags;

use super::{FileSystem, Image, Loop, failing};
use crate::client::Client;
use crate::daemon::Daemon;

const MIB: usize = 1 << 20;

/// The `fallocate` of the device has no effect, like that of a thin volume. Its blocks are released
/// nevertheless.
#[test]
fn c11_a_block_device_discards_without_fallocate() {
    let image = Image::new(8 << 20);
    let Some(device) = Loop::attach(&image.path(), &[]) else {
        return;
    };
    let Some(daemon) = failing(&["fallocate:error=EOPNOTSUPP"], &device.disk()) else {
        return;
    };
    let mut client = Client::simple(daemon.socket());
    if !client.features().contains(VirtioBlkFeatureFlags::DISCARD) {
        println!("skipped: loop devices do not discard here");
        return;
    }
    for at in 0..4 {
        client.write(0, at * MIB as u64, &vec![9; MIB]).unwrap();
    }
    client.flush(0).unwrap();
    let before = image.allocated();
    assert!(before >= 4 << 20, "{before}");
    client.discard(0, 512, 4 * MIB as u64 - 1024).unwrap();
    client.flush(0).unwrap();
    let after = image.allocated();
    assert!(after <= before - (3 << 20), "{before} bytes have become {after}");
    // If the device cannot zero, zeroes are written.
    client.write(0, 0, &vec![9; MIB]).unwrap();
    client.write_zeroes(0, 512, 4096, true).unwrap();
    let seen = client.read(0, 0, 8192).unwrap();
    assert_eq!(seen, [&[9; 512][..], &[0; 4096], &[9; 3584]].concat());
    drop(client);
    let log = daemon.stop();
    assert!(!log.contains("no effect"), "{log}");
}

#[test]
fn c11_a_block_device_that_cannot_discard_does_not_offer_it() {
    // On a file without holes, a loop device has no discards.
    let Some(system) = FileSystem::mount("ramfs", "mode=0700") else {
        return;
    };
    let path = system.path().join("disk.raw");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let Some(device) = Loop::attach(&path, &[]) else {
        return;
    };
    let daemon = Daemon::start(&device.disk(), &[]);
    let mut client = Client::simple(daemon.socket());
    assert!(!client.features().contains(VirtioBlkFeatureFlags::DISCARD));
    assert!(client.features().contains(VirtioBlkFeatureFlags::WRITE_ZEROES));
    for unmap in [false, true] {
        client.write(0, 0, &[9; 8192]).unwrap();
        client.write_zeroes(0, 512, 4096, unmap).unwrap();
        let seen = client.read(0, 0, 8192).unwrap();
        assert_eq!(seen, [&[9; 512][..], &[0; 4096], &[9; 3584]].concat());
    }
}
