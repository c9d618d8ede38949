//! Image files: opened, read in full, given back in part, and in steps of bounded size.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{DiskError, SECTOR};
use crate::chain::Bytes;

/// A file is read and written in steps of so many bytes.
const STEP: usize = 256 * 1024;

pub(super) fn open_image(path: &Path, read_only: bool) -> io::Result<(File, u64)> {
    // Looked at before it is opened: to open a pipe is to wait for somebody at its other end.
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is neither a file nor a block device",
        ));
    }
    let mut file = OpenOptions::new().read(true).write(!read_only).open(path)?;
    // A block device has no length but an end.
    let bytes = file.seek(SeekFrom::End(0))?;
    if bytes < SECTOR {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it has {bytes} bytes, and a disk has at least one sector of {SECTOR}"),
        ));
    }
    if !bytes.is_multiple_of(SECTOR) {
        tracing::warn!(path = %path.display(), bytes, "the image's last {} bytes are no whole sector and not offered",
            bytes % SECTOR);
    }
    Ok((file, bytes))
}

/// Calls `each` with a buffer, a position and the stretch of `all` that belongs there, step by step.
pub(super) fn in_steps(
    step: &RefCell<Vec<u8>>,
    mut at: u64,
    all: Bytes<'_>,
    mut each: impl FnMut(&mut [u8], u64, Bytes<'_>) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let mut step = step.borrow_mut();
    let mut rest = all;
    while !rest.is_empty() {
        let count = rest.len().min(STEP as u64);
        let Some((part, after)) = rest.split_at(count) else {
            return Ok(());
        };
        if step.len() < count as usize {
            step.resize(count as usize, 0);
        }
        each(&mut step[..count as usize], at, part)?;
        at += count;
        rest = after;
    }
    Ok(())
}

/// Reads all of `target`; where a file has become shorter than it was, that is an error: zeroes would be a lie.
pub(super) fn read_file(file: &File, target: &mut [u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < target.len() {
        match file.read_at(&mut target[done..], at + done as u64) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it has become shorter than it was when it was opened",
                ));
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Changes how a range of a file is allocated; false if this file cannot do that.
pub(super) fn allocate(file: &File, how: FallocateFlags, at: u64, len: u64) -> io::Result<bool> {
    if len == 0 {
        return Ok(true);
    }
    loop {
        match rustix::fs::fallocate(file, how | FallocateFlags::KEEP_SIZE, at, len) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}
