//! Disks of every kind: written data can be read again, no access is outside the disk, and file errors are
//! reported.

use super::*;
use crate::buffers::Buffer;
use crate::memory::Memory;
use crate::memory::tests::simple;

fn image(bytes: u64) -> (tempfile::NamedTempFile, Source) {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(bytes).unwrap();
    let source = Source::File(image.path().to_owned());
    (image, source)
}

struct Client {
    memory: Memory,
    buffers: Vec<Buffer>,
}

impl Client {
    /// Buffers of these lengths, with gaps between them.
    fn new(lens: &[u32]) -> Self {
        let mut guest = 0x1000;
        let mut buffers = Vec::new();
        for len in lens {
            buffers.push(Buffer { guest, len: *len });
            guest += u64::from(*len) + 24;
        }
        Self {
            memory: simple(0x20_0000),
            buffers,
        }
    }

    fn bytes(&self) -> Bytes<'_> {
        Bytes::new(&self.memory, &self.buffers)
    }

    fn contents(&self) -> Vec<u8> {
        let mut contents = vec![0; self.bytes().len() as usize];
        self.bytes().read(&mut contents).unwrap();
        contents
    }
}

fn each_disk(check: impl Fn(&Disk)) {
    check(&Disk::open(&Source::Ram(1 << 20), false).unwrap());
    let (_image, source) = image(1 << 20);
    check(&Disk::open(&source, false).unwrap());
}

#[test]
fn written_data_is_read() {
    each_disk(|disk| {
        let client = Client::new(&[1, 511, 4096, 300_000, 896]);
        let text: Vec<u8> = (0..client.bytes().len()).map(|i| (i % 251) as u8).collect();
        client.bytes().write(&text).unwrap();
        disk.write(1024, client.bytes()).unwrap();
        client.bytes().write(&vec![0xaa; text.len()]).unwrap();
        disk.read(1024, client.bytes()).unwrap();
        assert_eq!(client.contents(), text);
        disk.read(0, client.bytes()).unwrap();
        assert_eq!(client.contents()[..1024], [0; 1024]);
        assert_eq!(client.contents()[1024..], text[..text.len() - 1024]);
        disk.flush().unwrap();
    });
}

#[test]
fn nothing_happens_outside() {
    each_disk(|disk| {
        let client = Client::new(&[1024]);
        for at in [disk.size() - 512, disk.size(), u64::MAX - 511, u64::MAX] {
            assert!(matches!(
                disk.read(at, client.bytes()),
                Err(DiskError::Outside { .. })
            ));
            assert!(matches!(
                disk.write(at, client.bytes()),
                Err(DiskError::Outside { .. })
            ));
            assert!(matches!(disk.discard(at, 1024), Err(DiskError::Outside { .. })));
            assert!(matches!(
                disk.write_zeroes(at, 1024, true),
                Err(DiskError::Outside { .. })
            ));
        }
        disk.write(disk.size() - 1024, client.bytes()).unwrap();
    });
}

#[test]
fn zeroes_and_discards_keep_to_their_range_and_the_size() {
    each_disk(|disk| {
        let client = Client::new(&[4096 * 3]);
        let ones = vec![1; 4096 * 3];
        for unmap in [false, true] {
            client.bytes().write(&ones).unwrap();
            disk.write(0, client.bytes()).unwrap();
            assert_eq!(disk.write_zeroes(4096, 4096, unmap).unwrap().bytes, 4096);
            disk.read(0, client.bytes()).unwrap();
            let seen = client.contents();
            assert_eq!(seen[..4096], ones[..4096]);
            assert_eq!(seen[4096..8192], [0; 4096]);
            assert_eq!(seen[8192..], ones[..4096]);
        }
        assert_eq!(disk.discard(0, 4096).unwrap().bytes, 4096);
        assert_eq!(disk.discard(disk.size(), 0).unwrap().bytes, 0);
        disk.read(8192, Client::new(&[512]).bytes()).unwrap();
    });
}

#[test]
fn the_image_never_grows() {
    let (image, source) = image(1 << 20);
    let disk = Disk::open(&source, false).unwrap();
    let zeroed = disk.write_zeroes((1 << 20) - 4096, 4096, false).unwrap();
    let discarded = disk.discard((1 << 20) - 4096, 4096).unwrap();
    assert_eq!((zeroed.bytes, discarded.bytes), (4096, 4096));
    assert_eq!(image.as_file().metadata().unwrap().len(), 1 << 20);
}

#[test]
fn an_odd_tail_is_not_offered() {
    let (_image, source) = image(1000);
    assert_eq!(Disk::open(&source, false).unwrap().size(), 512);
}

#[test]
fn read_only_is_read_only() {
    let (_image, source) = image(4096);
    for source in [source, Source::Ram(4096), Source::Null(4096)] {
        let disk = Disk::open(&source, true).unwrap();
        let client = Client::new(&[512]);
        assert!(matches!(disk.write(0, client.bytes()), Err(DiskError::ReadOnly)));
        assert!(matches!(disk.discard(0, 512), Err(DiskError::ReadOnly)));
        assert!(matches!(
            disk.write_zeroes(0, 512, false),
            Err(DiskError::ReadOnly)
        ));
        disk.read(0, client.bytes()).unwrap();
        disk.flush().unwrap();
    }
}

#[test]
fn an_unmapped_buffer_is_an_error_and_not_a_crash() {
    each_disk(|disk| {
        let memory = simple(0x1000);
        let buffers = [Buffer {
            guest: 0x1f00,
            len: 512,
        }];
        let bytes = Bytes::new(&memory, &buffers);
        assert!(matches!(disk.read(0, bytes), Err(DiskError::Unmapped(_))));
        assert!(matches!(disk.write(0, bytes), Err(DiskError::Unmapped(_))));
    });
}

/// The image is truncated while it is served. A read beyond its end returns an error, and no zeroes or
/// SIGBUS. The rest is served, and a write extends the image again.
#[test]
fn an_image_that_shrank_is_an_error() {
    let (image, source) = image(1 << 20);
    let disk = Disk::open(&source, false).unwrap();
    image.as_file().set_len(4096 + 100).unwrap();
    let client = Client::new(&[512]);
    disk.read(4096 - 512, client.bytes()).unwrap();
    for at in [4096, 8192, (1 << 20) - 512] {
        assert!(
            matches!(disk.read(at, client.bytes()), Err(DiskError::File(_))),
            "at {at}"
        );
    }
    client.bytes().write(&[7; 512]).unwrap();
    disk.write(8192, client.bytes()).unwrap();
    client.bytes().write(&[0; 512]).unwrap();
    disk.read(8192, client.bytes()).unwrap();
    assert_eq!(client.contents(), [7; 512]);
    assert!(image.as_file().metadata().unwrap().len() <= 1 << 20);
}

/// Writes fail because the file system is full. The error is reported, and the disk is still served.
#[test]
fn a_full_file_system_is_an_error() {
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        println!("skipped: there is no /dev/full");
        return;
    }
    let file = std::fs::OpenOptions::new().read(true).write(true).open(full);
    let disk = Disk {
        medium: Medium::File(Image::new(file.unwrap(), full).unwrap()),
        size: AtomicU64::new(1 << 20),
        cut: Cut::default(),
        access: Access::new(false),
    };
    let client = Client::new(&[300_000, 512 - 300_000 % 512]);
    let no_space = |result: Result<(), DiskError>| match result {
        Err(DiskError::File(error)) => error.kind() == io::ErrorKind::StorageFull,
        _ => false,
    };
    assert!(no_space(disk.write(0, client.bytes())));
    assert!(no_space(disk.write_zeroes(0, 4096, false).map(drop)));
    disk.read(0, client.bytes()).unwrap();
}
