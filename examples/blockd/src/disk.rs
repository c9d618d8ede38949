//! What is behind an export: an image file, memory, or nothing at all.
//!
//! A disk reads and writes within its size and nowhere else; it knows nothing of queues. File access is synchronous: the
//! loop waits for it.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use vm_memory::{MmapRegion, VolatileMemory};

use crate::chain::{Bytes, Unmapped};

/// Bytes of a sector: the unit in which virtio addresses a disk, whatever its block size.
pub(crate) const SECTOR: u64 = 512;

/// A file is read and written in steps of so many bytes.
const STEP: usize = 256 * 1024;

/// Where an export's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image file or a block device.
    File(PathBuf),
    /// Memory of so many bytes, zero at first, gone at the end.
    Ram(u64),
    /// So many bytes that take what is written and leave a reader's buffer as it is: to measure everything else.
    Null(u64),
}

/// Why a disk did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The range is not on the disk.
    #[error("bytes {at} to {at} + {len} are not on a disk of {size} bytes")]
    Outside {
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
        /// Size of the disk in bytes.
        size: u64,
    },
    /// The disk is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The request's buffer does not exist.
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    /// The file said no.
    #[error("the image file: {0}")]
    File(#[from] io::Error),
}

#[derive(Debug)]
enum Medium {
    File { file: File, step: RefCell<Vec<u8>> },
    Ram(MmapRegion),
    Null,
}

/// A disk of whole sectors.
#[derive(Debug)]
pub(crate) struct Disk {
    medium: Medium,
    size: u64,
    read_only: bool,
}

impl Disk {
    /// Opens or makes it.
    ///
    /// # Errors
    /// What the system says to opening the file or reserving the memory.
    pub(crate) fn open(source: &Source, read_only: bool) -> io::Result<Self> {
        let (medium, bytes) = match source {
            Source::File(path) => {
                let (file, bytes) = open_image(path, read_only)?;
                (
                    Medium::File {
                        file,
                        step: RefCell::default(),
                    },
                    bytes,
                )
            }
            Source::Ram(bytes) => {
                let len = usize::try_from(*bytes).map_err(io::Error::other)?;
                (
                    Medium::Ram(MmapRegion::new(len.max(1)).map_err(io::Error::other)?),
                    *bytes,
                )
            }
            Source::Null(bytes) => (Medium::Null, *bytes),
        };
        Ok(Self {
            medium,
            size: bytes / SECTOR * SECTOR,
            read_only,
        })
    }

    /// Bytes, a multiple of [`SECTOR`].
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether writing is refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether a request may take so long that earlier ones should not wait to be reported.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.medium, Medium::File { .. })
    }

    /// Whether `len` bytes from `at` are on the disk.
    ///
    /// # Errors
    /// [`DiskError::Outside`] if not.
    pub(crate) fn check(&self, at: u64, len: u64) -> Result<(), DiskError> {
        match at.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(DiskError::Outside {
                at,
                len,
                size: self.size,
            }),
        }
    }

    fn check_write(&self, at: u64, len: u64) -> Result<(), DiskError> {
        if self.read_only {
            return Err(DiskError::ReadOnly);
        }
        self.check(at, len)
    }

    /// Fills `into` with what is on the disk from byte `at`.
    ///
    /// # Errors
    /// [`DiskError`]; a part may have been filled.
    pub(crate) fn read(&self, at: u64, into: Bytes<'_>) -> Result<(), DiskError> {
        self.check(at, into.len())?;
        match &self.medium {
            Medium::Ram(ram) => {
                let mut from = at as usize;
                into.for_each(|piece| {
                    let there = ram.get_slice(from, piece.len()).map_err(io::Error::other)?;
                    there.copy_to_volatile_slice(piece);
                    from += piece.len();
                    Ok(())
                })
            }
            Medium::File { file, step } => in_steps(step, at, into, |step, at, part| {
                read_file(file, step, at)?;
                Ok(part.write(step)?)
            }),
            Medium::Null => Ok(()),
        }
    }

    /// Writes `from` to the disk from byte `at`.
    ///
    /// # Errors
    /// [`DiskError`]; a part may have been written, never outside the range.
    pub(crate) fn write(&self, at: u64, from: Bytes<'_>) -> Result<(), DiskError> {
        self.check_write(at, from.len())?;
        match &self.medium {
            Medium::Ram(ram) => {
                let mut to = at as usize;
                from.for_each(|piece| {
                    let there = ram.get_slice(to, piece.len()).map_err(io::Error::other)?;
                    piece.copy_to_volatile_slice(there);
                    to += piece.len();
                    Ok(())
                })
            }
            Medium::File { file, step } => in_steps(step, at, from, |step, at, part| {
                part.read(step)?;
                Ok(file.write_all_at(step, at)?)
            }),
            Medium::Null => Ok(()),
        }
    }

    /// Makes what has been written survive a loss of power, where that means anything.
    ///
    /// # Errors
    /// What the file says.
    pub(crate) fn flush(&self) -> Result<(), DiskError> {
        match &self.medium {
            Medium::File { file, .. } if !self.read_only => Ok(file.sync_data()?),
            _ => Ok(()),
        }
    }

    /// Gives the range back: its contents do not matter any more. A file that cannot do that keeps it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn discard(&self, at: u64, len: u64) -> Result<(), DiskError> {
        self.check_write(at, len)?;
        match &self.medium {
            Medium::File { file, .. } => {
                allocate(file, FallocateFlags::PUNCH_HOLE, at, len)?;
                Ok(())
            }
            Medium::Ram(_) => self.zero(at, len),
            Medium::Null => Ok(()),
        }
    }

    /// Makes the range read as zeroes; `unmap` allows to give it back besides.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn write_zeroes(&self, at: u64, len: u64, unmap: bool) -> Result<(), DiskError> {
        self.check_write(at, len)?;
        match &self.medium {
            Medium::File { file, .. } => {
                let how = if unmap {
                    FallocateFlags::PUNCH_HOLE
                } else {
                    FallocateFlags::ZERO_RANGE
                };
                if allocate(file, how, at, len)? {
                    Ok(())
                } else {
                    self.zero(at, len)
                }
            }
            Medium::Ram(_) => self.zero(at, len),
            Medium::Null => Ok(()),
        }
    }

    /// Writes zeroes, the long way.
    fn zero(&self, at: u64, len: u64) -> Result<(), DiskError> {
        static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
        let (mut at, mut left) = (at, len);
        while left > 0 {
            let count = left.min(ZEROES.len() as u64);
            let zeroes = &ZEROES[..count as usize];
            match &self.medium {
                Medium::File { file, .. } => file.write_all_at(zeroes, at)?,
                Medium::Ram(ram) => {
                    ram.get_slice(at as usize, zeroes.len())
                        .map_err(io::Error::other)?
                        .copy_from(zeroes);
                }
                Medium::Null => {}
            }
            at += count;
            left -= count;
        }
        Ok(())
    }
}

fn open_image(path: &Path, read_only: bool) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).write(!read_only).open(path)?;
    // A block device has no length but an end.
    let bytes = file.seek(SeekFrom::End(0))?;
    if !bytes.is_multiple_of(SECTOR) {
        tracing::warn!(path = %path.display(), bytes, "the image's last {} bytes are no whole sector and not offered",
            bytes % SECTOR);
    }
    Ok((file, bytes))
}

/// Calls `each` with a buffer, a position and the stretch of `all` that belongs there, step by step.
fn in_steps(
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

/// Reads all of `target`; where a file has become shorter than it was, there are zeroes.
fn read_file(file: &File, target: &mut [u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < target.len() {
        match file.read_at(&mut target[done..], at + done as u64) {
            Ok(0) => {
                target[done..].fill(0);
                break;
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Changes how a range of a file is allocated; false if this file cannot do that.
fn allocate(file: &File, how: FallocateFlags, at: u64, len: u64) -> io::Result<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Buffer;
    use crate::memory::Memory;
    use crate::memory::tests::simple;

    fn image(bytes: u64) -> (tempfile::NamedTempFile, Source) {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(bytes).unwrap();
        let source = Source::File(image.path().to_owned());
        (image, source)
    }

    struct Client {
        memory: Memory,
        buffers: Vec<Buffer>,
    }

    impl Client {
        /// Buffers of these lengths, with gaps between them.
        fn new(lens: &[u32]) -> Self {
            let mut guest = 0x1000;
            let mut buffers = Vec::new();
            for len in lens {
                buffers.push(Buffer { guest, len: *len });
                guest += u64::from(*len) + 24;
            }
            Self {
                memory: simple(0x20_0000),
                buffers,
            }
        }

        fn bytes(&self) -> Bytes<'_> {
            Bytes::new(&self.memory, &self.buffers)
        }

        fn contents(&self) -> Vec<u8> {
            let mut contents = vec![0; self.bytes().len() as usize];
            self.bytes().read(&mut contents).unwrap();
            contents
        }
    }

    fn each_disk(check: impl Fn(&Disk)) {
        check(&Disk::open(&Source::Ram(1 << 20), false).unwrap());
        let (_image, source) = image(1 << 20);
        check(&Disk::open(&source, false).unwrap());
    }

    #[test]
    fn what_is_written_is_read() {
        each_disk(|disk| {
            let client = Client::new(&[1, 511, 4096, 300_000, 896]);
            let text: Vec<u8> = (0..client.bytes().len()).map(|i| (i % 251) as u8).collect();
            client.bytes().write(&text).unwrap();
            disk.write(1024, client.bytes()).unwrap();
            client.bytes().write(&vec![0xaa; text.len()]).unwrap();
            disk.read(1024, client.bytes()).unwrap();
            assert_eq!(client.contents(), text);
            disk.read(0, client.bytes()).unwrap();
            assert_eq!(client.contents()[..1024], [0; 1024]);
            assert_eq!(client.contents()[1024..], text[..text.len() - 1024]);
            disk.flush().unwrap();
        });
    }

    #[test]
    fn nothing_happens_outside() {
        each_disk(|disk| {
            let client = Client::new(&[1024]);
            for at in [disk.size() - 512, disk.size(), u64::MAX - 511, u64::MAX] {
                assert!(matches!(
                    disk.read(at, client.bytes()),
                    Err(DiskError::Outside { .. })
                ));
                assert!(matches!(
                    disk.write(at, client.bytes()),
                    Err(DiskError::Outside { .. })
                ));
                assert!(matches!(disk.discard(at, 1024), Err(DiskError::Outside { .. })));
                assert!(matches!(
                    disk.write_zeroes(at, 1024, true),
                    Err(DiskError::Outside { .. })
                ));
            }
            disk.write(disk.size() - 1024, client.bytes()).unwrap();
        });
    }

    #[test]
    fn zeroes_and_discards_keep_to_their_range_and_the_size() {
        each_disk(|disk| {
            let client = Client::new(&[4096 * 3]);
            let ones = vec![1; 4096 * 3];
            for unmap in [false, true] {
                client.bytes().write(&ones).unwrap();
                disk.write(0, client.bytes()).unwrap();
                disk.write_zeroes(4096, 4096, unmap).unwrap();
                disk.read(0, client.bytes()).unwrap();
                let seen = client.contents();
                assert_eq!(seen[..4096], ones[..4096]);
                assert_eq!(seen[4096..8192], [0; 4096]);
                assert_eq!(seen[8192..], ones[..4096]);
            }
            disk.discard(0, 4096).unwrap();
            disk.discard(disk.size(), 0).unwrap();
            disk.read(8192, Client::new(&[512]).bytes()).unwrap();
        });
    }

    #[test]
    fn the_image_never_grows() {
        let (image, source) = image(1 << 20);
        let disk = Disk::open(&source, false).unwrap();
        disk.write_zeroes((1 << 20) - 4096, 4096, false).unwrap();
        disk.discard((1 << 20) - 4096, 4096).unwrap();
        assert_eq!(image.as_file().metadata().unwrap().len(), 1 << 20);
    }

    #[test]
    fn an_odd_tail_is_not_offered() {
        let (_image, source) = image(1000);
        assert_eq!(Disk::open(&source, false).unwrap().size(), 512);
    }

    #[test]
    fn read_only_is_read_only() {
        let (_image, source) = image(4096);
        for source in [source, Source::Ram(4096), Source::Null(4096)] {
            let disk = Disk::open(&source, true).unwrap();
            let client = Client::new(&[512]);
            assert!(matches!(disk.write(0, client.bytes()), Err(DiskError::ReadOnly)));
            assert!(matches!(disk.discard(0, 512), Err(DiskError::ReadOnly)));
            assert!(matches!(
                disk.write_zeroes(0, 512, false),
                Err(DiskError::ReadOnly)
            ));
            disk.read(0, client.bytes()).unwrap();
            disk.flush().unwrap();
        }
    }

    #[test]
    fn an_unmapped_buffer_is_an_error_and_not_a_crash() {
        each_disk(|disk| {
            let memory = simple(0x1000);
            let buffers = [Buffer {
                guest: 0x1f00,
                len: 512,
            }];
            let bytes = Bytes::new(&memory, &buffers);
            assert!(matches!(disk.read(0, bytes), Err(DiskError::Unmapped(_))));
            assert!(matches!(disk.write(0, bytes), Err(DiskError::Unmapped(_))));
        });
    }
}
