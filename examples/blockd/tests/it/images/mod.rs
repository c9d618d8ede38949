//! Image files and block devices: their errors, and several images in one daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::daemon::Daemon;

mod c02_locks;
mod c03_formats;
mod c04_flush;
mod c05_zeroes;
mod c08_blocked_media;
pub(crate) mod c08_slow_images;
mod c09_neighbours;
mod c10_memory;
mod c11_devices;
mod c12_discards;
mod c13_steps;
mod c15_odd_images;
mod c28_features;

/// Returns a command, if it is installed. Otherwise prints a `skipped` line.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let found = Command::new(name)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        println!("skipped: {name} is not installed");
        return None;
    }
    Some(Command::new(name))
}

/// Runs a command. Returns its output if it succeeds, otherwise prints a `skipped` line with the reason.
pub(crate) fn attempt(command: &mut Command) -> Option<String> {
    let Ok(Output {
        status,
        stdout,
        stderr,
    }) = command.output()
    else {
        println!("skipped: {} is not installed", command.get_program().display());
        return None;
    };
    if !status.success() {
        println!(
            "skipped: {command:?}: {}",
            String::from_utf8_lossy(&stderr).trim()
        );
        return None;
    }
    Some(String::from_utf8(stdout).unwrap().trim().to_owned())
}

/// Starts a daemon into whose system calls strace injects faults such as `fdatasync:error=EIO:when=1`.
/// Returns `None`, with a `skipped` line, if that is impossible here. Threads make the calls: the kernel
/// makes those of a ring, where no faults can be injected.
fn failing(faults: &[&str], disk: &str) -> Option<Daemon> {
    failing_with(faults, disk, &["--engine", "threads"])
}

/// Like [`failing`], with the default engine and more arguments.
pub(crate) fn failing_with(faults: &[&str], disk: &str, args: &[&str]) -> Option<Daemon> {
    let mut strace = tool("strace")?;
    attempt(Command::new("strace").args(["-o", "/dev/null", "true"]))?;
    // The traced program stays the child of the test. The trace itself is not used.
    strace.args(["-D", "-f", "-q", "-o", "/dev/null"]);
    for fault in faults {
        strace.arg("-e").arg(format!("inject={fault}"));
    }
    strace.arg(env!("CARGO_BIN_EXE_blockd"));
    Some(Daemon::start_by(strace, tempfile::tempdir().unwrap(), disk, args))
}

/// An image in a directory of its own.
pub(crate) struct Image {
    directory: tempfile::TempDir,
}

impl Image {
    pub(crate) fn new(bytes: u64) -> Self {
        let image = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        std::fs::File::create(image.path())
            .unwrap()
            .set_len(bytes)
            .unwrap();
        image
    }

    /// Makes the image a hole of this length. All its data are lost.
    pub(crate) fn clear(&self, bytes: u64) {
        let file = std::fs::File::create(self.path()).unwrap();
        file.set_len(bytes).unwrap();
    }

    /// Returns `true` if its file system has direct access; otherwise prints a `skipped` line.
    pub(crate) fn has_direct_access(&self) -> bool {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(self.path(), flags, rustix::fs::Mode::empty());
        if let Err(error) = &opened {
            println!("skipped: no direct access to files here: {error}");
        }
        opened.is_ok()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("disk.raw")
    }

    fn file(&self) -> std::fs::File {
        std::fs::File::open(self.path()).unwrap()
    }

    /// Returns the description of the image as an export's disk.
    pub(crate) fn disk(&self) -> String {
        format!("path={}", self.path().display())
    }

    /// Returns the bytes that it takes on its file system.
    fn allocated(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(self.path()).unwrap().blocks() * 512
    }

    /// Returns the path of a socket beside it.
    pub(crate) fn socket(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

/// A block device that is backed by a file. Dropping it detaches it.
pub(crate) struct Loop {
    device: PathBuf,
}

impl Loop {
    /// Attaches a file with these options, if this machine and user can.
    pub(crate) fn attach(file: &Path, options: &[&str]) -> Option<Self> {
        let device = attempt(
            Command::new("losetup")
                .args(["--find", "--show"])
                .args(options)
                .arg(file),
        )?;
        Some(Self {
            device: device.into(),
        })
    }

    pub(crate) fn disk(&self) -> String {
        format!("path={}", self.device.display())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        attempt(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

/// A file system in memory. Dropping it unmounts it.
pub(crate) struct FileSystem {
    directory: tempfile::TempDir,
}

impl FileSystem {
    /// Mounts a `tmpfs`, or a `ramfs`, which has no limits and no holes, if this user may mount one.
    pub(crate) fn mount(kind: &str, options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        attempt(
            Command::new("mount")
                .args(["-t", kind, "-o", options, "blockd-test"])
                .arg(directory.path()),
        )?;
        Some(Self { directory })
    }

    pub(crate) fn grow(&self, size: &str) {
        let grown = attempt(
            Command::new("mount")
                .args(["-o", &format!("remount,size={size}")])
                .arg(self.directory.path()),
        );
        grown.unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// A block device of 16 MiB with storage for less than 2 MiB. Further writes are lost, until it
/// [grows](Self::grow).
pub(crate) struct Overcommitted {
    // This is detached before its file system is unmounted.
    device: Loop,
    system: FileSystem,
}

impl Overcommitted {
    /// Attaches a new device, if this machine and user can.
    pub(crate) fn attach() -> Option<Self> {
        let system = FileSystem::mount("tmpfs", "size=2M,mode=0700")?;
        let file = system.path().join("disk.raw");
        std::fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let device = Loop::attach(&file, &[])?;
        Some(Self { device, system })
    }

    pub(crate) fn disk(&self) -> String {
        self.device.disk()
    }

    pub(crate) fn grow(&self) {
        self.system.grow("64M");
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        attempt(Command::new("umount").arg(self.directory.path()));
    }
}
