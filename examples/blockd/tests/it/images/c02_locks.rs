//! C2: one image has one writer, of any program.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use super::{Image, Loop, tool};
use crate::client::{Client, pattern};
use crate::daemon::Daemon;
use crate::process::{complaint, first_line};

fn export(disk: &str, image: &Image, socket: &str) -> String {
    format!("{disk},socket={}", image.socket(socket))
}

/// Returns the error of a daemon that must not serve this disk.
fn refused(disk: &str, image: &Image) -> String {
    complaint(&["--export", &export(disk, image, "refused.sock")])
}

#[test]
fn c2_two_exports_of_one_image_are_refused() {
    let image = Image::new(1 << 20);
    let link = image.directory.path().join("link");
    std::fs::hard_link(image.path(), &link).unwrap();
    for other in [
        image.disk(),
        format!("path={}", link.display()),
        image.disk() + ",readonly",
    ] {
        let said = complaint(&[
            "--export",
            &export(&image.disk(), &image, "a.sock"),
            "--export",
            &export(&other, &image, "b.sock"),
        ]);
        assert!(said.contains("another export of this daemon"), "{said}");
        assert!(said.contains(other.split([',', '=']).nth(1).unwrap()), "{said}");
        assert!(said.contains("lock=off"), "{said}");
    }
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_blockd"))
        .args([
            "--export",
            &export(&(image.disk() + ",readonly"), &image, "a.sock"),
        ])
        .args([
            "--export",
            &export(&(image.disk() + ",readonly"), &image, "b.sock"),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = first_line(&mut daemon);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(line, "ready\n", "two readers are fine");
}

#[test]
fn c2_two_daemons_on_one_image() {
    let image = Image::new(1 << 20);
    let writer = Daemon::start(&image.disk(), &[]);
    for disk in [image.disk(), image.disk() + ",readonly"] {
        let said = refused(&disk, &image);
        let holder = format!("process {} (blockd)", writer.id());
        assert!(said.contains(&holder), "{said} does not name {holder}");
        assert!(said.contains(&*image.path().to_string_lossy()), "{said}");
    }
    Daemon::start(&(image.disk() + ",lock=off"), &[]).serves();
    writer.serves();
    writer.stop();

    let readers = [0; 2].map(|_| Daemon::start(&(image.disk() + ",readonly"), &[]));
    let said = refused(&image.disk(), &image);
    assert!(said.contains(&format!("process {}", readers[0].id())), "{said}");
    assert!(said.contains(&format!("process {}", readers[1].id())), "{said}");
    drop(readers);
    Daemon::start(&image.disk(), &[]).serves();
}

/// A daemon that is killed leaves no lock behind.
#[test]
fn c2_a_lock_ends_with_its_process() {
    let image = Image::new(1 << 20);
    for _ in 0..3 {
        let daemon = Daemon::start(&image.disk(), &[]);
        daemon.serves();
        drop(daemon);
    }
}

/// Another program of QEMU that has the image open, and closes it when it is dropped.
struct Peer {
    child: Child,
}

impl Peer {
    /// Starts `qemu-io` with options, and waits until it has opened the image.
    fn qemu_io(image: &Image, options: &[&str]) -> Option<Self> {
        let mut child = tool("qemu-io")?
            .args(["-f", "raw"])
            .args(options)
            .arg(image.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        // It answers commands once it has opened the image.
        writeln!(child.stdin.as_mut().unwrap(), "length").unwrap();
        let mut said = BufReader::new(child.stdout.as_mut().unwrap());
        let mut line = String::new();
        while !line.contains("MiB") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "qemu-io has ended");
        }
        Some(Self { child })
    }

    /// Starts `qemu-storage-daemon`, and waits until it listens for NBD clients of the image.
    fn storage_daemon(image: &Image) -> Option<Self> {
        let pidfile = image.directory.path().join("pid");
        let child = storage_daemon(image)?
            .arg("--pidfile")
            .arg(&pidfile)
            .spawn()
            .unwrap();
        let mut peer = Self { child };
        // It writes the file when its set-up is complete.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !pidfile.exists() {
            assert!(
                peer.child.try_wait().unwrap().is_none(),
                "qemu-storage-daemon has ended"
            );
            assert!(
                std::time::Instant::now() < deadline,
                "qemu-storage-daemon does not start"
            );
            std::thread::yield_now();
        }
        Some(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn storage_daemon(image: &Image) -> Option<Command> {
    let mut command = tool("qemu-storage-daemon")?;
    command
        .arg("--blockdev")
        .arg(format!("file,node-name=file,filename={}", image.path().display()))
        .args(["--blockdev", "raw,node-name=disk,file=file"])
        .arg("--export")
        .arg(format!(
            "vhost-user-blk,id=disk,node-name=disk,writable=on,addr.type=unix,addr.path={}",
            image.socket("qsd.sock")
        ))
        .stderr(Stdio::piped());
    Some(command)
}

#[test]
fn c2_qemu_has_the_image() {
    let image = Image::new(1 << 20);
    let Some(peer) = Peer::qemu_io(&image, &[]) else {
        return;
    };
    let holder = format!("process {} (qemu-io)", peer.child.id());
    for disk in [image.disk(), image.disk() + ",readonly"] {
        let said = refused(&disk, &image);
        assert!(
            said.contains(&holder) && said.contains("open for writing"),
            "{said}"
        );
    }
    drop(peer);
    let Some(peer) = Peer::qemu_io(&image, &["-r"]) else {
        return;
    };
    Daemon::start(&(image.disk() + ",readonly"), &[]).stop();
    drop(peer);
    let Some(peer) = Peer::storage_daemon(&image) else {
        return;
    };
    let said = refused(&image.disk(), &image);
    assert!(
        said.contains(&format!("process {} (qemu-storage-", peer.child.id())),
        "{said}"
    );
    drop(peer);
    Daemon::start(&image.disk(), &[]).serves();
}

#[test]
fn c2_qemu_finds_the_image_taken() {
    let image = Image::new(1 << 20);
    let Some(mut qemu_io) = tool("qemu-io") else {
        return;
    };
    qemu_io.args(["-f", "raw", "-c", "write 0 512"]).arg(image.path());
    let Some(mut storage_daemon) = storage_daemon(&image) else {
        return;
    };
    for disk in [image.disk(), image.disk() + ",readonly"] {
        let daemon = Daemon::start(&disk, &[]);
        let output = qemu_io.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("lock"), "{said}");
        let mut child = storage_daemon.spawn().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(
            !child.wait().unwrap().success() && said.contains("lock"),
            "{said}"
        );
        daemon.stop();
    }
    assert!(
        qemu_io.output().unwrap().status.success(),
        "the lock is gone with the daemon"
    );
}

/// Block devices are locked as well, and a mounted device is not written behind its file system.
#[test]
fn c2_block_devices() {
    let image = Image::new(1 << 20);
    let Some(device) = Loop::attach(&image.path(), &[]) else {
        return;
    };
    let daemon = Daemon::start(&device.disk(), &[]);
    let mut client = Client::simple(daemon.socket());
    client.write(0, 0, &pattern(1, 4096)).unwrap();
    assert_eq!(client.read(0, 0, 4096).unwrap(), pattern(1, 4096));
    let said = refused(&device.disk(), &image);
    assert!(
        said.contains("served already") && said.contains("lock=off"),
        "{said}"
    );
    let said = refused(&(device.disk() + ",readonly"), &image);
    assert!(said.contains(&format!("process {}", daemon.id())), "{said}");
    drop(client);
    daemon.stop();
    Daemon::start(&device.disk(), &[]).stop();

    let Some(mut mkfs) = tool("mkfs.ext4") else { return };
    let made = mkfs.arg("-q").arg(&device.device).status().unwrap();
    assert!(made.success());
    let mount = tempfile::tempdir().unwrap();
    if super::attempt(Command::new("mount").arg(&device.device).arg(mount.path())).is_none() {
        return;
    }
    let said = refused(&device.disk(), &image);
    let unmounted = super::attempt(Command::new("umount").arg(mount.path()));
    assert!(said.contains("mounted"), "{said}");
    unmounted.unwrap();
    Daemon::start(&device.disk(), &[]).stop();
}
