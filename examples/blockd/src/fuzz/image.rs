//! Arbitrary image files, which are opened and recognized, and whose size is determined.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::disk::{Access, Disk, SECTOR, Source};

/// The largest image. It is sparse.
const MOST_BYTES: u64 = 1 << 42;

thread_local! {
    static SCENE: RefCell<Scene> = RefCell::new(Scene::new());
}

/// A file that each input turns into a new image.
struct Scene {
    file: File,
    path: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let file = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
        let path = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&file)
        );
        Self {
            file: file.into(),
            path: path.into(),
        }
    }
}

/// Returns the names of the formats that other programs recognize by these first and last bytes. It is a
/// second implementation of the recognition. A file can have several marks.
fn containers(first: &[u8], last: &[u8]) -> Vec<&'static str> {
    let names: [(&[u8], &str); 11] = [
        (b"QFI\xfb", "qcow2"),
        (b"QED\0", "qed"),
        (b"KDMV", "vmdk"),
        (b"COWD", "vmdk"),
        (b"# Disk DescriptorFile", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"LUKS\xba\xbe", "luks"),
        (b"conectix", "vpc"),
        (b"WithoutFreeSpace", "parallels"),
        (b"WithouFreSpacExt", "parallels"),
        (b"Bochs Virtual HD Image", "bochs"),
    ];
    let marked = names.iter().filter(|(mark, _)| first.starts_with(mark));
    let mut found: Vec<_> = marked.map(|(_, name)| *name).collect();
    if first.len() >= 68 && first[64..68] == [0x7f, 0x10, 0xda, 0xbe] {
        found.push("vdi");
    }
    if last.starts_with(b"conectix") {
        found.push("vpc");
    }
    found
}

/// Opens an image that `data` describes: the options for opening it, its size, and bytes at its beginning and
/// at its end.
///
/// # Panics
/// If a container is served as a raw image without the option that allows it, if a raw image is refused for no reason, or if the disk has
/// bytes that the image does not have.
pub fn image(data: &[u8]) {
    let [how, mantissa, exponent, odd, contents @ ..] = data else {
        return;
    };
    SCENE.with_borrow_mut(|scene| {
        let size = (u64::from(*mantissa) << (exponent % 40)).saturating_add((*odd).into());
        let size = size.min(MOST_BYTES);
        let access = Access {
            read_only: how & 1 != 0,
            lock: how & 2 != 0,
            raw: how & 4 != 0,
            discard: how & 8 != 0,
            direct: how & 16 != 0,
            block: if how & 32 == 0 { SECTOR } else { 4096 },
        };
        // The beginning and the end have different bytes.
        let (first, last) = contents.split_at(contents.len() / 2);
        scene.file.set_len(0).expect("a memfd shrinks");
        scene.file.set_len(size).expect("a memfd grows");
        for (at, bytes) in [(0, first), (size.saturating_sub(SECTOR.min(size)), last)] {
            let room = usize::try_from(size - at).unwrap_or(usize::MAX);
            let bytes = &bytes[..bytes.len().min(room)];
            scene.file.write_all_at(bytes, at).expect("a memfd takes bytes");
        }
        let len = size.min(SECTOR) as usize;
        let (mut first, mut last) = (vec![0; len], vec![0; len]);
        scene.file.read_exact_at(&mut first, 0).expect("a memfd");
        scene
            .file
            .read_exact_at(&mut last, size - len as u64)
            .expect("a memfd");
        let mut found = containers(&first, &last);
        if access.raw {
            found.clear();
        }
        match Disk::open_for(&Source::File(scene.path.clone()), access) {
            Ok(disk) => {
                assert_eq!(found, [""; 0], "a container is served as a raw image");
                assert_eq!(disk.size(), size / access.block * access.block);
                assert!(disk.size() >= access.block);
            }
            Err(why) => {
                let why = why.to_string();
                let is_small = size < access.block;
                assert!(
                    found.iter().any(|name| why.contains(name)) || is_small || access.direct,
                    "{why}"
                );
            }
        }
    });
}
