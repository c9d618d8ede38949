//! C8, C9: a medium that completes nothing delays only its own export, for every request, protocol and
//! engine.
//!
//! The image is a loop device. A control group limits the transfers of blockd to and from it to a byte a
//! second.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Image, Loop};
use crate::client::{Client, pattern, readable};
use crate::daemon::Daemon;
use crate::engines::has_ring;
use crate::nbd::client as nbd;
use crate::raw::{DATA, Raw, WRITE};

/// The directory where systems mount control groups. In version 1 it has a hierarchy for each controller.
const MOUNTED: &str = "/sys/fs/cgroup";

/// A control group that can block a device for its processes. It is removed when this value is dropped; its
/// processes must have ended.
struct Group {
    path: PathBuf,
    is_version_1: bool,
    /// The major and minor number.
    device: String,
}

impl Group {
    /// Makes a control group, if this system and user can.
    fn make(device: &Path) -> Option<Self> {
        let number = fs::metadata(device).unwrap().rdev();
        let device = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
        let is_version_1 = Path::new(MOUNTED).join("blkio/cgroup.procs").exists();
        let hierarchy = Path::new(MOUNTED).join(if is_version_1 { "blkio" } else { "" });
        let group = Self {
            path: hierarchy.join(format!("blockd-test-{}", device.replace(':', "-"))),
            is_version_1,
            device,
        };
        let made = fs::create_dir(&group.path).and_then(|()| group.set("1", "rbps=1 wbps=1"));
        if let Err(error) = made {
            println!("skipped: no control group that limits a device: {error}");
            return None;
        }
        group.release();
        Some(group)
    }

    fn set(&self, version_1: &str, version_2: &str) -> std::io::Result<()> {
        if !self.is_version_1 {
            return fs::write(self.path.join("io.max"), format!("{} {version_2}", self.device));
        }
        for way in ["read", "write"] {
            let file = self.path.join(format!("blkio.throttle.{way}_bps_device"));
            fs::write(file, format!("{} {version_1}", self.device))?;
        }
        Ok(())
    }

    /// Blocks the device: from now on it completes nothing for the group.
    fn block(&self) {
        self.set("1", "rbps=1 wbps=1").unwrap();
    }

    fn release(&self) {
        self.set("0", "rbps=max wbps=max").unwrap();
    }

    /// Returns a command that becomes blockd in the group.
    fn command(&self) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"echo $$ > "$0" && exec "$@""#]);
        shell.arg(self.path.join("cgroup.procs"));
        shell.arg(env!("CARGO_BIN_EXE_blockd"));
        shell
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.set("0", "rbps=max wbps=max");
        let _ = fs::remove_dir(&self.path);
    }
}

/// A daemon with the image of a medium that can be blocked, and a disk in memory.
struct Scene {
    daemon: Option<Daemon>,
    group: Group,
    nbd: PathBuf,
    /// The clients of the disk in memory. They stay connected, because the end of a connection is delayed
    /// while a child that another test forks shares it.
    neighbour: Client,
    neighbour_of_nbd: nbd::Client,
    _device: Loop,
    _image: Image,
}

impl Scene {
    fn start(engine: &str, cache: &str) -> Option<Self> {
        let image = Image::new(4 << 20);
        fs::write(image.path(), pattern(1, 4 << 20)).unwrap();
        let device = Loop::attach(&image.path(), &[])?;
        let group = Group::make(Path::new(device.disk().trim_start_matches("path=")))?;
        let [nbd, neighbour] = ["nbd.sock", "neighbour.sock"].map(|name| PathBuf::from(image.socket(name)));
        let disk = format!("{},cache={cache},name=disk", device.disk());
        let beside = format!("ram=1M,name=neighbour,socket={}", neighbour.display());
        let socket = nbd.display().to_string();
        let args = ["--engine", engine, "--nbd", &socket, "--export", &beside];
        let daemon = Daemon::start_by(group.command(), tempfile::tempdir().unwrap(), &disk, &args);
        Some(Self {
            daemon: Some(daemon),
            group,
            neighbour: Client::simple(&neighbour),
            neighbour_of_nbd: nbd::Client::structured(&nbd, "neighbour"),
            nbd,
            _device: device,
            _image: image,
        })
    }

    fn socket(&self) -> &Path {
        self.daemon.as_ref().unwrap().socket()
    }

    /// Checks that the neighbour is served over both protocols, and that clients of the image can connect.
    fn others_are_served(&mut self) {
        let (client, other) = (&mut self.neighbour, &mut self.neighbour_of_nbd);
        for round in 0..50 {
            let data = pattern(round, 4096);
            client.write(0, 4096 * (round % 16), &data).unwrap();
            assert_eq!(other.read(4096 * (round % 16), 4096).unwrap(), data);
        }
        drop(nbd::Client::structured(&self.nbd, "disk"));
    }

    fn stop(mut self) {
        assert_eq!(self.daemon.take().unwrap().stop(), "");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A killed daemon ends only after its requests.
        let _ = self.group.set("0", "rbps=max wbps=max");
        drop(self.daemon.take());
    }
}

/// Returns each engine with each way of using the page cache.
fn combinations() -> Vec<(&'static str, &'static str)> {
    let engines = ["auto", "uring", "threads"];
    let engines = engines
        .into_iter()
        .filter(|engine| *engine != "uring" || has_ring());
    engines
        .flat_map(|engine| [(engine, "writeback"), (engine, "none")])
        .collect()
}

/// Returns a request to discard or zero a sector.
fn range(sector: u64) -> Vec<u8> {
    [sector.to_le_bytes(), 8_u64.to_le_bytes()].concat()
}

#[test]
fn c8_a_blocked_medium_holds_up_no_other_export_of_vhost_user() {
    for (engine, cache) in combinations() {
        let Some(mut scene) = Scene::start(engine, cache) else {
            return;
        };
        let mut raw = Raw::ready(scene.socket());
        // Requests to read, write, discard and zero. This client's driver does not flush, so each of the last
        // three is flushed.
        for (kind, len, flags) in [(0, 4096, WRITE), (1, 4096, 0), (11, 16, 0), (13, 16, 0)] {
            let sector = 64 + 8 * u64::from(kind);
            raw.put(DATA, &if kind > 1 { range(sector) } else { vec![7; 4096] });
            scene.group.block();
            let before = raw.used();
            raw.offer_request(kind, sector, &[(DATA, len)], flags);
            scene.others_are_served();
            let what = format!("{engine}, {cache}, request {kind}");
            assert_eq!(raw.used(), before, "{what} is complete on a blocked medium");
            scene.group.release();
            raw.wait_used(before.wrapping_add(1));
            assert_eq!(raw.get(crate::raw::STATUS, 1), [0], "{what}");
        }
        drop(raw);
        scene.stop();
    }
}

#[test]
fn c8_a_blocked_medium_holds_up_no_other_export_of_nbd() {
    for (engine, cache) in combinations() {
        let Some(mut scene) = Scene::start(engine, cache) else {
            return;
        };
        let stream = UnixStream::connect(&scene.nbd).unwrap();
        let replies = stream.try_clone().unwrap();
        let mut client = nbd::Client::begin(stream).choose("disk");
        let requests = [
            (nbd::READ, 0),
            (nbd::WRITE, nbd::FUA),
            (nbd::FLUSH, 0),
            (nbd::TRIM, nbd::FUA),
            (nbd::WRITE_ZEROES, nbd::FUA),
        ];
        for (place, (command, flags)) in (16..).zip(requests) {
            let what = format!("{engine}, {cache}, command {command}");
            let at = place << 16;
            if command == nbd::FLUSH {
                if cache == "none" {
                    // There are no data to transfer.
                    continue;
                }
                client.write(at, &[3; 4096]).unwrap();
            }
            scene.group.block();
            let cookie = match command {
                nbd::WRITE => client.start_write(flags, at, &[9; 4096]),
                nbd::FLUSH => client.start(command, flags, 0, 0),
                _ => client.start(command, flags, at, 4096),
            };
            scene.others_are_served();
            assert!(
                !readable(&replies, Duration::ZERO),
                "{what} is complete on a blocked medium"
            );
            scene.group.release();
            let reply = client.next_reply();
            assert_eq!(reply.cookie, cookie);
            let data = reply
                .result
                .unwrap_or_else(|error| panic!("{what}: error {error}"));
            if command == nbd::READ {
                let whole = pattern(1, 4 << 20);
                assert_eq!(data, whole[at as usize..at as usize + 4096], "{what}");
            }
        }
        drop(client);
        scene.stop();
    }
}
