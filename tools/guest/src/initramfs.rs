//! The guest's first file system: busybox, the drivers that its kernel has as modules, mke2fs with its
//! libraries, and the scripts of `guest/`. It is written in the kernel's format (cpio, "newc";
//! Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aio_tools::shell;
use anyhow::{Context as _, bail};

/// The drivers of the disks and of their file system. Drivers that are part of the kernel have no module.
const DRIVERS: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;
const LINK: u32 = 0o120_777;

/// An archive under construction.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            contents.len() as u32,
            0,
            0,
            major,
            minor,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds a directory and its ancestors.
    fn directory(&mut self, path: &Path) {
        let above: Vec<&Path> = path
            .ancestors()
            .filter(|path| path.file_name().is_some())
            .collect();
        for path in above.into_iter().rev() {
            if self.directories.insert(path.to_owned()) {
                self.entry(&path.to_string_lossy(), DIRECTORY, (0, 0), &[]);
            }
        }
    }

    /// Adds an executable file, and its directories.
    fn file(&mut self, path: &str, contents: &[u8]) {
        if let Some(above) = Path::new(path).parent() {
            self.directory(above);
        }
        self.entry(path, EXECUTABLE, (0, 0), contents);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

/// The parts of the guest's first file system.
pub(crate) struct Parts<'a> {
    pub(crate) busybox: &'a Path,
    /// The directory `lib/modules/RELEASE` of the kernel.
    pub(crate) modules: &'a Path,
    pub(crate) mke2fs: &'a Path,
}

/// Makes the archive.
///
/// # Errors
/// If a file cannot be read, or a module cannot be unpacked.
pub(crate) fn build(parts: &Parts<'_>) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "tmp", "mnt", "etc", "sbin"] {
        archive.directory(Path::new(directory));
    }
    archive.entry("dev/console", DEVICE, (5, 1), &[]);
    archive.file("bin/busybox", &read(parts.busybox)?);
    archive.entry("bin/sh", LINK, (0, 0), b"busybox");
    archive.file("init", include_bytes!("../guest/init"));
    archive.file("bin/commands", include_bytes!("../guest/commands"));
    archive.file("bin/pattern", include_bytes!("../guest/pattern"));
    archive.file("bin/writer", include_bytes!("../guest/writer"));
    archive.file("sbin/mke2fs", &read(parts.mke2fs)?);
    for library in libraries(parts.mke2fs)? {
        let place = library.strip_prefix("/").unwrap_or(&library);
        archive.file(&place.to_string_lossy(), &read(&library)?);
    }
    if let Ok(settings) = fs::read("/etc/mke2fs.conf") {
        archive.file("etc/mke2fs.conf", &settings);
    }
    let mut order = String::new();
    for module in modules(parts.modules)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".xz").trim_end_matches(".zst");
        archive.file(&format!("modules/{name}"), &unpacked(&module)?);
        order.push_str(name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes());
    Ok(archive.finish())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Returns the libraries of a program.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    let said = shell::output(ldd.arg(program).env("LC_ALL", "C"))?;
    Ok(said
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

/// Returns the modules that the drivers need, in the order of loading.
fn modules(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (listed, is_complete) = match fs::read_to_string(directory.join("modules.dep")) {
        Ok(listed) => (listed, true),
        // The package was only unpacked, so the list is missing.
        Err(_) => (String::new(), false),
    };
    let mut needed = Vec::new();
    for driver in DRIVERS {
        if is_complete {
            needed.extend(from_list(&listed, driver, directory));
        } else {
            search(directory, driver, &mut needed)?;
        }
    }
    let mut seen = BTreeSet::new();
    needed.retain(|module| seen.insert(module.clone()));
    Ok(needed)
}

fn is_module(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let base = file.split(".ko").next().unwrap_or(file);
    base.replace('-', "_") == name
}

/// Returns a driver and the modules that it needs, in the order of loading. A line `path: path path` lists
/// them in the reverse order.
fn from_list(listed: &str, driver: &str, directory: &Path) -> Vec<PathBuf> {
    let line = listed.lines().find_map(|line| {
        let (module, needs) = line.split_once(':')?;
        is_module(module, driver).then_some((module, needs))
    });
    let Some((module, needs)) = line else {
        return Vec::new();
    };
    let needs = needs.split_whitespace().rev();
    needs.chain([module]).map(|path| directory.join(path)).collect()
}

/// Appends the modules that a module names in its section `.modinfo`, and then the module.
fn search(directory: &Path, name: &str, needed: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let Some(module) = find(&directory.join("kernel"), name)? else {
        return Ok(());
    };
    let contents = unpacked(&module)?;
    let named = contents
        .split(|byte| *byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="));
    let named = String::from_utf8_lossy(named.unwrap_or_default()).into_owned();
    for other in named.split(',').filter(|other| !other.is_empty()) {
        search(directory, &other.replace('-', "_"), needed)?;
    }
    needed.push(module);
    Ok(())
}

fn find(directory: &Path, name: &str) -> anyhow::Result<Option<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.to_string_lossy().contains(".ko") && is_module(&path.to_string_lossy(), name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Returns the contents of a module. The file can be compressed.
fn unpacked(module: &Path) -> anyhow::Result<Vec<u8>> {
    let ending = module.extension().unwrap_or_default().to_string_lossy();
    let (program, package) = match &*ending {
        "ko" => return read(module),
        "xz" => ("xz", "xz-utils"),
        "zst" => ("zstd", "zstd"),
        _ => bail!("{} has an unknown compression", module.display()),
    };
    let output = Command::new(program)
        .arg("-dc")
        .arg(module)
        .output()
        .with_context(|| format!("cannot start {program}; apt-get install {package}"))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}", module.display());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_one_that_cpio_reads() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"hello");
        archive.file("a/b/d", b"");
        archive.entry("l", LINK, (0, 0), b"a");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        if !shell::is_installed("cpio") {
            println!("skipped: cpio is not installed");
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let mut cpio = Command::new("cpio");
        cpio.args(["--list", "--quiet", "-F"]).arg(file.path());
        assert_eq!(shell::output(&mut cpio).unwrap(), "a\na/b\na/b/c\na/b/d\nl\n");
    }

    #[test]
    fn modules_are_loaded_after_those_that_they_need() {
        let listed = "kernel/fs/ext4/ext4.ko: kernel/fs/mbcache.ko kernel/lib/crc16.ko\nkernel/drivers/virtio-blk.ko.xz:\n";
        let at = |paths: &[&str]| -> Vec<PathBuf> {
            paths.iter().map(|path| Path::new("/m").join(path)).collect()
        };
        let directory = Path::new("/m");
        assert_eq!(
            from_list(listed, "ext4", directory),
            at(&[
                "kernel/lib/crc16.ko",
                "kernel/fs/mbcache.ko",
                "kernel/fs/ext4/ext4.ko"
            ])
        );
        assert_eq!(
            from_list(listed, "virtio_blk", directory),
            at(&["kernel/drivers/virtio-blk.ko.xz"])
        );
        assert_eq!(from_list(listed, "virtio_pci", directory), at(&[]));
    }
}
