//! The capabilities of a block device.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Capabilities and limits of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockDevice {
    /// The bytes of a logical block, the unit of discards and zeroes.
    pub(super) block: u64,
    /// Set if the device supports discards, or if the system does not report it.
    pub(super) can_discard: bool,
    /// Set if writes fail. Opening such a device for writing succeeds.
    pub(super) read_only: bool,
    /// Set if the device zeroes a range without a transfer of zeroes.
    pub(super) can_zero: bool,
}

impl BlockDevice {
    /// Examines a file. Returns `None` if it is not a block device.
    ///
    /// # Errors
    /// If the system does not report the block size.
    pub(super) fn examine(file: &File) -> io::Result<Option<Self>> {
        let about = file.metadata()?;
        if !about.file_type().is_block_device() {
            return Ok(None);
        }
        let (major, minor) = (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
        let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        Ok(Some(Self {
            block: rustix::fs::ioctl_blksszget(file)?.into(),
            read_only: number(&device.join("ro")) == Some(1),
            // An unknown limit counts as support, because a discard without effect is not an error.
            can_discard: limit(&device, "discard_max_bytes") != Some(0),
            can_zero: limit(&device, "write_zeroes_max_bytes").is_some_and(|most| most > 0),
        }))
    }
}

/// Returns a limit of the queue of a device. A partition has the limits of its device.
fn limit(device: &Path, name: &str) -> Option<u64> {
    ["queue", "../queue"]
        .iter()
        .find_map(|queue| number(&device.join(queue).join(name)))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_a_file_is_no_block_device() {
        assert_eq!(
            BlockDevice::examine(&tempfile::tempfile().unwrap()).unwrap(),
            None
        );
    }

    #[test]
    fn c11_limits_of_partitions_are_those_of_the_device() {
        let system = tempfile::tempdir().unwrap();
        let (device, partition) = (system.path().join("sda"), system.path().join("sda/sda1"));
        std::fs::create_dir_all(device.join("queue")).unwrap();
        std::fs::create_dir_all(&partition).unwrap();
        std::fs::write(device.join("queue/discard_max_bytes"), "4096\n").unwrap();
        for path in [&device, &partition] {
            assert_eq!(limit(path, "discard_max_bytes"), Some(4096));
            assert_eq!(limit(path, "unknown"), None);
        }
        std::fs::write(device.join("queue/discard_max_bytes"), "much\n").unwrap();
        assert_eq!(limit(&device, "discard_max_bytes"), None);
    }
}
