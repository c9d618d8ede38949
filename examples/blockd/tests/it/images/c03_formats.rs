//! C3: a container is not served as a raw image.

use super::{Image, tool};
use crate::client::Client;
use crate::daemon::Daemon;
use crate::process::complaint;

/// The formats of qemu-img: name, display name, and options.
const FORMATS: [(&str, &[&str]); 8] = [
    ("qcow2", &["-f", "qcow2"]),
    ("vmdk", &["-f", "vmdk"]),
    ("vmdk", &["-f", "vmdk", "-o", "subformat=monolithicFlat"]),
    ("vhdx", &["-f", "vhdx"]),
    ("vdi", &["-f", "vdi"]),
    ("qed", &["-f", "qed"]),
    ("vpc", &["-f", "vpc"]),
    ("vpc", &["-f", "vpc", "-o", "subformat=fixed"]),
];

#[test]
fn c3_containers_are_refused() {
    let Some(_) = tool("qemu-img") else { return };
    for (format, options) in FORMATS {
        let image = Image::new(0);
        let made = tool("qemu-img")
            .unwrap()
            .args(["create", "-q"])
            .args(options)
            .arg(image.path())
            .arg("4M")
            .output()
            .unwrap();
        if !made.status.success() {
            println!(
                "skipped: this qemu-img makes no {format}: {}",
                String::from_utf8_lossy(&made.stderr)
            );
            continue;
        }
        for more in ["", ",readonly"] {
            let export = format!("{},socket={}{more}", image.disk(), image.socket("a.sock"));
            let said = complaint(&["--export", &export]);
            assert!(
                said.contains(&format!("those of a {format} image")),
                "{format}: {said}"
            );
            assert!(
                said.contains("format=raw") && said.contains("qemu-img convert"),
                "{said}"
            );
            assert!(said.contains(&*image.path().to_string_lossy()), "{said}");
        }
        let before = std::fs::read(image.path()).unwrap();
        if before.len() < 512 {
            // The file describes another file that has the data. It is too short to be a disk in any format.
            continue;
        }
        let daemon = Daemon::start(&(image.disk() + ",format=raw"), &[]);
        let mut client = Client::simple(daemon.socket());
        assert_eq!(client.capacity(), before.len() as u64 / 512 * 512);
        assert_eq!(client.read(0, 0, 512).unwrap(), before[..512]);
        drop(client);
        daemon.stop();
        assert_eq!(
            std::fs::read(image.path()).unwrap(),
            before,
            "{format} is left as it was"
        );
    }
}

/// Making an encrypted image takes qemu-img seconds, so the first bytes of one stand for it.
#[test]
fn c3_an_encrypted_image_is_refused() {
    let image = Image::new(0);
    let header = [&b"LUKS\xba\xbe\0\x02"[..], &[0; 4088]].concat();
    std::fs::write(image.path(), header).unwrap();
    let export = format!("{},socket={}", image.disk(), image.socket("a.sock"));
    let said = complaint(&["--export", &export]);
    assert!(said.contains("those of a luks image"), "{said}");
    Daemon::start(&(image.disk() + ",format=raw"), &[]).stop();
}

/// A guest writes the mark of a container to its raw disk. The image is served until the daemon ends, and
/// afterwards only with `format=raw`.
#[test]
fn c3_a_guest_can_make_its_disk_look_like_a_container() {
    let image = Image::new(1 << 20);
    let daemon = Daemon::start(&image.disk(), &[]);
    let mut client = Client::simple(daemon.socket());
    let mut sector = [0; 512];
    sector[..4].copy_from_slice(b"QFI\xfb");
    client.write(0, 0, &sector).unwrap();
    drop(client);
    daemon.serves();
    daemon.stop();
    let export = format!("{},socket={}", image.disk(), image.socket("a.sock"));
    let said = complaint(&["--export", &export]);
    assert!(said.contains("guest can write such bytes"), "{said}");
    let daemon = Daemon::start(&(image.disk() + ",format=raw"), &[]);
    let mut client = Client::simple(daemon.socket());
    assert_eq!(client.read(0, 0, 512).unwrap(), sector);
}
