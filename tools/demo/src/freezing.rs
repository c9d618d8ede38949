//! [`Freezable`]: a file system on a file of its own. It can be frozen, so that writes to it hang.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The bytes of the file system.
const SIZE: u64 = 384 << 20;

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub(crate) struct Freezable {
    mounted: PathBuf,
}

/// A frozen file system. Dropping it thaws the file system.
#[derive(Debug)]
pub(crate) struct Frozen<'a> {
    system: &'a Freezable,
}

impl Freezable {
    /// Makes a file system in a directory, and mounts it there.
    ///
    /// # Errors
    /// If the system does not support this, or the user lacks the permission.
    pub(crate) fn mount(directory: &Path) -> anyhow::Result<Self> {
        let (file, mounted) = (directory.join("ext4"), directory.join("mounted"));
        File::create(&file)?.set_len(SIZE)?;
        std::fs::create_dir(&mounted)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file))?;
        run(Command::new("mount").args(["-o", "loop"]).args([&file, &mounted]))?;
        Ok(Self { mounted })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    /// Returns the major and minor number of its device.
    ///
    /// # Errors
    /// If the file system cannot be examined.
    pub(crate) fn device(&self) -> anyhow::Result<(u32, u32)> {
        let device = std::fs::metadata(&self.mounted)?.dev();
        Ok((rustix::fs::major(device), rustix::fs::minor(device)))
    }

    /// Freezes the file system. Writes wait until the returned value is dropped.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn freeze(&self) -> anyhow::Result<Frozen<'_>> {
        run(Command::new("fsfreeze").arg("-f").arg(&self.mounted))?;
        Ok(Frozen { system: self })
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(())
}

fn run_at_end(command: &mut Command) {
    if let Err(error) = run(command) {
        eprintln!("{error:#}");
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run_at_end(Command::new("fsfreeze").arg("-u").arg(&self.system.mounted));
    }
}

impl Drop for Freezable {
    fn drop(&mut self) {
        run_at_end(Command::new("umount").arg(&self.mounted));
    }
}
