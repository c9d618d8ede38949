//! The steps of a guest, in order. Each returns its observation, or fails.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::daemon::Daemon;
use crate::guest::Guest;
use crate::row::Setup;

/// The size of the disk before it is resized.
pub(crate) const DISK: u64 = 256 << 20;
const RESIZED: u64 = 384 << 20;
const SECOND: u64 = 32 << 20;
const MIB: u64 = 1 << 20;
/// The pages of a MiB.
const PAGES: u64 = 256;
/// The lines of a page.
const LINES: usize = 256;
/// The time limit of a command in the guest. The slowest takes three seconds on an idle core.
const LIMIT: Duration = Duration::from_secs(300);
/// The size of the files that fstrim releases.
const TRIMMED_MIB: u64 = 48;

/// The objects that a step works with.
pub(crate) struct Scene<'a> {
    pub(crate) setup: Setup,
    pub(crate) directory: &'a Path,
    pub(crate) daemon: &'a mut Daemon,
    pub(crate) guest: &'a mut Guest,
    /// The number of times that the daemon is killed.
    pub(crate) kills: u32,
    /// The size of a pattern, in MiB.
    pub(crate) pattern: u64,
}

/// A step: its name and function.
pub(crate) type Step = (&'static str, fn(&mut Scene<'_>) -> anyhow::Result<String>);

pub(crate) const STEPS: [Step; 9] = [
    ("disk", disk),
    ("pattern", pattern),
    ("resize", resize),
    ("hot plug", hot_plug),
    ("mkfs", mkfs),
    ("fstrim", fstrim),
    ("kill -9", kill),
    ("reboot", reboot),
    ("unmount", unmount),
];

/// The guest detects the disk with the right properties.
fn disk(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let guest = &mut *scene.guest;
    let see = "cd /sys/block/vda && cat size && echo $(cat serial) && ls mq | wc -l";
    let said = guest.run(see, LIMIT)?;
    let expected = format!("{}\nguest-disk\n{}", DISK / 512, scene.setup.queues);
    ensure!(
        said == expected,
        "size, serial and queues are {said:?}, not {expected:?}"
    );
    Ok(format!(
        "Linux {}, {} MiB, {}",
        guest.release,
        DISK / MIB,
        scene.setup.queues_text()
    ))
}

/// The guest writes and flushes a pattern, and reads it again without its cache. The host compares it with
/// the image.
fn pattern(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let count = scene.pattern;
    let from = DISK / MIB - count;
    scene
        .guest
        .run(&format!("pattern write /dev/vda {count} {from}"), LIMIT)?;
    check_image(&scene.directory.join("image"), from, count)?;
    scene
        .guest
        .run(&format!("pattern check /dev/vda {count} {from}"), LIMIT)?;
    Ok(format!(
        "{count} MiB written, read and compared by guest and host"
    ))
}

/// Compares an image with the output of the guest's `pattern`.
fn check_image(image: &Path, from: u64, count: u64) -> anyhow::Result<()> {
    let file = File::open(image)?;
    let mut found = vec![0; MIB as usize];
    for at in from..from + count {
        file.read_exact_at(&mut found, at * MIB)?;
        // The same text as that of the guest's `pattern`.
        let pages = at * PAGES..(at + 1) * PAGES;
        let expected: String = pages.map(|page| format!("{page:015}\n").repeat(LINES)).collect();
        ensure!(
            expected.as_bytes() == found,
            "MiB {at} of the image is not what the guest has written"
        );
    }
    Ok(())
}

/// The disk grows while the guest uses it.
fn resize(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    scene.daemon.ctl(&["resize", "disk", &RESIZED.to_string()])?;
    let size = (RESIZED / 512).to_string();
    scene.guest.wait_for("cat /sys/block/vda/size", &size, LIMIT)?;
    let last = RESIZED / MIB - 1;
    for what in ["write", "check"] {
        scene
            .guest
            .run(&format!("pattern {what} /dev/vda 1 {last}"), LIMIT)?;
    }
    check_image(&scene.directory.join("image"), last, 1)?;
    Ok(format!(
        "{} MiB became {}, its end written and read",
        DISK / MIB,
        RESIZED / MIB
    ))
}

/// A second disk is added and removed.
fn hot_plug(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let socket = scene.directory.join("second.sock");
    let export = format!("ram={SECOND},name=second,socket={}", socket.display());
    scene.daemon.ctl(&["add", &export])?;
    scene.guest.plug("second", &socket)?;
    let size = (SECOND / 512).to_string();
    scene
        .guest
        .wait_for("cat /sys/block/vdb/size 2>/dev/null", &size, LIMIT)?;
    let count = scene.pattern.min(SECOND / MIB);
    for what in ["write", "check"] {
        scene
            .guest
            .run(&format!("pattern {what} /dev/vdb {count} 0"), LIMIT)?;
    }
    scene.guest.unplug("second")?;
    scene.guest.wait_for("ls /sys/block | grep -c vdb", "0", LIMIT)?;
    scene.daemon.ctl(&["remove", "second"])?;
    Ok(format!(
        "a disk of {} MiB added, {count} MiB verified, removed",
        SECOND / MIB
    ))
}

/// The guest makes a file system, uses it, and finds its files again.
fn mkfs(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let guest = &mut *scene.guest;
    guest.run("/sbin/mke2fs -q -F -t ext4 /dev/vda", LIMIT)?;
    guest.run("mount -t ext4 /dev/vda /mnt", LIMIT)?;
    guest.run("seq 1 200000 > /mnt/kept && umount /mnt", LIMIT)?;
    guest.run(
        "echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 /dev/vda /mnt",
        LIMIT,
    )?;
    guest.run(KEPT, LIMIT)?;
    Ok("ext4 made, mounted twice, a file compared".to_owned())
}

/// Compares the file that `mkfs` has written.
const KEPT: &str = "seq 1 200000 | cmp - /mnt/kept";

/// The blocks that the guest discards are released on the host.
fn fstrim(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let image = scene.directory.join("image");
    let allocated = || -> anyhow::Result<u64> { Ok(image.metadata()?.blocks() * 512 / MIB) };
    let guest = &mut *scene.guest;
    let make = format!("dd if=/dev/urandom of=/mnt/large bs=1M count={TRIMMED_MIB} conv=fsync 2>&1");
    guest.run(&make, LIMIT)?;
    let before = allocated()?;
    guest.run("rm /mnt/large && sync && fstrim /mnt", LIMIT)?;
    let after = allocated()?;
    ensure!(
        after + TRIMMED_MIB / 2 <= before,
        "the image has {before} MiB before fstrim and {after} MiB after it"
    );
    Ok(format!("the image shrinks from {before} to {after} MiB"))
}

/// The daemon is killed under writes that the guest flushes, and another one takes over. One program writes
/// for each queue.
fn kill(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let guest = &mut *scene.guest;
    let writers = 1..=scene.setup.queues;
    for writer in writers.clone() {
        guest.run(&format!("writer write /mnt/{writer} >/dev/null 2>&1 &"), LIMIT)?;
    }
    let more = 3 * u64::from(scene.setup.queues);
    let mut acknowledged = 0;
    for _ in 0..scene.kills {
        acknowledged = wait_for_writes(guest, acknowledged + more)?;
        scene.daemon.kill_and_restart()?;
    }
    wait_for_writes(guest, acknowledged + more)?;
    guest.run("touch /tmp/stop", LIMIT)?;
    let stopped = scene.setup.queues.to_string();
    guest.wait_for("ls /tmp/writer.*.stopped 2>/dev/null | wc -l", &stopped, LIMIT)?;
    guest.run("umount /mnt && echo 3 > /proc/sys/vm/drop_caches", LIMIT)?;
    guest.run("mount -t ext4 /dev/vda /mnt", LIMIT)?;
    for writer in writers {
        guest.run(&format!("writer check /mnt/{writer}"), LIMIT)?;
    }
    let writes = guest.run("writer count", LIMIT)?;
    Ok(format!(
        "{} kills, {writes} writes, 0 lost, 0 failed, 0 hang",
        scene.kills
    ))
}

/// Waits until `least` writes are acknowledged. Returns their number.
fn wait_for_writes(guest: &mut Guest, least: u64) -> anyhow::Result<u64> {
    let began = Instant::now();
    loop {
        let said = guest.run("writer count", LIMIT)?;
        let count: u64 = said.trim().parse().context("`writer count` prints no number")?;
        if count >= least {
            return Ok(count);
        }
        ensure!(
            began.elapsed() < LIMIT,
            "writes hang: {count} are acknowledged, and no more within {} s",
            LIMIT.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The guest restarts and has its files.
fn reboot(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let guest = &mut *scene.guest;
    guest.send("sync; reboot -f")?;
    guest.wait_ready()?;
    guest.run("mount -t ext4 /dev/vda /mnt", LIMIT)?;
    guest.run(KEPT, LIMIT)?;
    Ok("the guest restarts and finds its file".to_owned())
}

fn unmount(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    scene.guest.run("umount /mnt", LIMIT)?;
    Ok("clean".to_owned())
}

/// Checks the file system of an image that is not in use.
///
/// # Errors
/// If e2fsck finds an error.
pub(crate) fn check_file_system(image: &Path) -> anyhow::Result<String> {
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(image)
        .env("LC_ALL", "C")
        .output()
        .context("cannot start e2fsck; apt-get install e2fsprogs")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "e2fsck finds errors:\n{said}");
    Ok("e2fsck finds no error".to_owned())
}

impl Setup {
    fn queues_text(self) -> String {
        format!("{} queue{}", self.queues, if self.queues == 1 { "" } else { "s" })
    }
}
