//! [`Operation`]: a file operation that owns its buffers. [`Completed`]: an ended operation, with its result.
//!
//! Operations are plain data. Backends that can execute them take them by value, keep them while the system
//! uses their buffers, and return them by value.

use std::any::Any;
use std::fmt;
use std::io;

use bitflags::bitflags;

use crate::{NotTaken, SharedFd};

/// The memory that an operation reads into or writes from.
///
/// ```
/// use aio_backend::Buffers;
///
/// assert_eq!(Buffers::from(vec![0; 512]).len(), Some(512));
/// assert_eq!(Buffers::from(vec![vec![0; 512], vec![0; 16]]).len(), Some(528));
/// ```
pub enum Buffers {
    /// One buffer. A read writes to its bytes, up to its length; the length of the vector stays.
    One(Vec<u8>),
    /// Several buffers, one after the other: at most 1,024.
    Many(Vec<Vec<u8>>),
    /// Memory that only some executors can use, such as that of a virtual machine. Those downcast its
    /// description; the others refuse the operation.
    Foreign(Box<dyn Any + Send>),
}

impl Buffers {
    /// Returns the number of bytes; `None` for foreign memory.
    #[must_use]
    pub fn len(&self) -> Option<usize> {
        match self {
            Self::One(buffer) => Some(buffer.len()),
            Self::Many(buffers) => Some(buffers.iter().map(Vec::len).sum()),
            Self::Foreign(_) => None,
        }
    }

    /// Returns whether there are no bytes. `false` for foreign memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl Default for Buffers {
    /// Returns an empty buffer.
    fn default() -> Self {
        Self::One(Vec::new())
    }
}

impl From<Vec<u8>> for Buffers {
    fn from(buffer: Vec<u8>) -> Self {
        Self::One(buffer)
    }
}

impl From<Vec<Vec<u8>>> for Buffers {
    fn from(buffers: Vec<Vec<u8>>) -> Self {
        Self::Many(buffers)
    }
}

impl fmt::Debug for Buffers {
    /// Shows lengths, not contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(buffer) => write!(f, "One({} bytes)", buffer.len()),
            Self::Many(buffers) => f.debug_list().entries(buffers.iter().map(Vec::len)).finish(),
            Self::Foreign(_) => f.write_str("Foreign"),
        }
    }
}

bitflags! {
    /// Options of a read or write. The bits are those of `preadv2(2)`.
    ///
    /// ```
    /// use aio_backend::TransferFlags;
    ///
    /// assert!((TransferFlags::NOWAIT | TransferFlags::DSYNC).contains(TransferFlags::DSYNC));
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct TransferFlags: u32 {
        /// A write completes when its data are on the medium, with the metadata that are needed to read them
        /// back.
        const DSYNC = 2;
        /// The operation fails with `EAGAIN` where it would wait, such as for data that are not in memory.
        const NOWAIT = 8;
    }
}

/// The change that [`FileAction::Allocate`] makes to a range of a file. See `fallocate(2)`.
///
/// ```
/// use aio_backend::Allocation;
///
/// assert_eq!(Allocation::Reserve.mode(), 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Allocation {
    /// Reserves space. The file grows if the range ends beyond its end.
    Reserve,
    /// Reserves space, and does not change the size of the file.
    ReserveKeepSize,
    /// Releases space. The range reads as zeroes afterwards, and the size stays.
    PunchHole,
    /// Zeroes the range, without writing if the file system can. The file grows if the range ends beyond its end.
    ZeroRange,
}

impl Allocation {
    /// Returns the mode of `fallocate(2)`.
    #[must_use]
    pub const fn mode(self) -> u32 {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        const ZERO_RANGE: u32 = 0x10;
        match self {
            Self::Reserve => 0,
            Self::ReserveKeepSize => KEEP_SIZE,
            Self::PunchHole => PUNCH_HOLE | KEEP_SIZE,
            Self::ZeroRange => ZERO_RANGE,
        }
    }
}

/// The action of an [`Operation`] on its file.
///
/// ```
/// use aio_backend::FileAction;
///
/// let flush = FileAction::Sync { data_only: true };
/// assert!(matches!(flush, FileAction::Sync { .. }));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum FileAction {
    /// `preadv2(2)`.
    Read {
        /// The position in the file; `None` for the current position. Files without positions, such as pipes,
        /// ignore it. A position beyond `i64::MAX` results in `EINVAL`.
        at: Option<u64>,
        /// The buffers that receive the data.
        into: Buffers,
        /// The options.
        flags: TransferFlags,
    },
    /// `pwritev2(2)`.
    Write {
        /// The position in the file, as for `Read`.
        at: Option<u64>,
        /// The data.
        from: Buffers,
        /// The options.
        flags: TransferFlags,
    },
    /// `fsync(2)`, or `fdatasync(2)` with `data_only`. It concerns the writes that completed before it was
    /// submitted.
    Sync {
        /// Leaves out metadata that reading the data does not need.
        data_only: bool,
    },
    /// `fallocate(2)`.
    Allocate {
        /// The change of the range.
        how: Allocation,
        /// Its first byte.
        at: u64,
        /// Its number of bytes.
        len: u64,
    },
    /// `statx(2)`: the result is the size of a regular file in bytes.
    Size,
}

/// An operation on a file.
///
/// ```
/// use std::sync::Arc;
/// use aio_backend::Operation;
///
/// # fn main() -> std::io::Result<()> {
/// let file = Arc::new(std::fs::File::open("/proc/self/stat")?);
/// let header = Operation::read(file.clone(), 0, vec![0; 512]);
/// let both = Operation::read(file.clone(), 512, vec![vec![0; 512], vec![0; 4096]]);
/// let flush = Operation::sync_data(file);
/// # drop((header, both, flush)); Ok(()) }
/// ```
#[derive(Debug)]
pub struct Operation {
    /// The file.
    pub file: SharedFd,
    /// The action.
    pub action: FileAction,
}

impl Operation {
    /// Reads from `file` at a position (`None`: the current one) until the buffers are full or the data end.
    #[must_use]
    pub fn read(file: impl Into<SharedFd>, at: impl Into<Option<u64>>, into: impl Into<Buffers>) -> Self {
        let (at, into, flags) = (at.into(), into.into(), TransferFlags::empty());
        Self::new(file, FileAction::Read { at, into, flags })
    }

    /// Writes the buffers to `file` at a position (`None`: the current one).
    #[must_use]
    pub fn write(file: impl Into<SharedFd>, at: impl Into<Option<u64>>, from: impl Into<Buffers>) -> Self {
        let (at, from, flags) = (at.into(), from.into(), TransferFlags::empty());
        Self::new(file, FileAction::Write { at, from, flags })
    }

    /// Writes data and metadata of `file` to the medium.
    #[must_use]
    pub fn sync_all(file: impl Into<SharedFd>) -> Self {
        Self::new(file, FileAction::Sync { data_only: false })
    }

    /// Writes data of `file` to the medium, and the metadata that are needed to read them back.
    #[must_use]
    pub fn sync_data(file: impl Into<SharedFd>) -> Self {
        Self::new(file, FileAction::Sync { data_only: true })
    }

    /// Changes the allocation of a range of `file`.
    #[must_use]
    pub fn allocate(file: impl Into<SharedFd>, how: Allocation, at: u64, len: u64) -> Self {
        Self::new(file, FileAction::Allocate { how, at, len })
    }

    /// Returns an operation whose result is the size of a regular file in bytes. The system may have to get
    /// it from a file server.
    #[must_use]
    pub fn size(file: impl Into<SharedFd>) -> Self {
        Self::new(file, FileAction::Size)
    }

    /// Makes an operation of any kind.
    #[must_use]
    pub fn new(file: impl Into<SharedFd>, action: FileAction) -> Self {
        let file = file.into();
        Self { file, action }
    }

    /// Returns the same operation with these flags. No effect on operations other than reads and writes.
    #[must_use]
    pub fn with_flags(mut self, more: TransferFlags) -> Self {
        if let FileAction::Read { flags, .. } | FileAction::Write { flags, .. } = &mut self.action {
            *flags |= more;
        }
        self
    }

    /// Returns the buffers of a read or write.
    #[must_use]
    pub fn buffers(&self) -> Option<&Buffers> {
        match &self.action {
            FileAction::Read { into: buffers, .. } | FileAction::Write { from: buffers, .. } => Some(buffers),
            FileAction::Sync { .. } | FileAction::Allocate { .. } | FileAction::Size => None,
        }
    }

    /// Removes the buffers of a read or write and returns them.
    #[must_use]
    pub fn take_buffers(&mut self) -> Buffers {
        match &mut self.action {
            FileAction::Read { into: buffers, .. } | FileAction::Write { from: buffers, .. } => {
                std::mem::take(buffers)
            }
            FileAction::Sync { .. } | FileAction::Allocate { .. } | FileAction::Size => Buffers::default(),
        }
    }
}

/// An operation that has ended.
///
/// ```
/// use std::sync::Arc;
/// use aio_backend::{Completed, Operation};
///
/// # fn main() -> std::io::Result<()> {
/// let file = Arc::new(std::fs::File::open("/proc/self/stat")?);
/// let operation = Operation::read(file, 0, b"four and more".to_vec());
/// let completed = Completed { result: Ok(4), operation };
/// assert_eq!(completed.into_bytes()?, b"four");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Completed {
    /// The number of bytes that were read or written, or the size, for [`FileAction::Size`]; zero for other
    /// operations. It can be smaller than the buffers: at the end of a file, on a full one, or after a
    /// signal. `ECANCELED` if the operation was cancelled before it began; `EINTR` if it was cancelled when
    /// it may have been executed in part.
    pub result: io::Result<usize>,
    /// The operation, with its buffers.
    pub operation: Operation,
}

impl Completed {
    /// Returns the bytes that a read into one buffer has read.
    ///
    /// # Errors
    /// The error of the operation; `InvalidInput` if it was not a read into one buffer.
    pub fn into_bytes(self) -> io::Result<Vec<u8>> {
        let count = self.result?;
        match self.operation.action {
            FileAction::Read {
                into: Buffers::One(mut buffer),
                ..
            } => {
                buffer.truncate(count);
                Ok(buffer)
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the operation was no read into one buffer",
            )),
        }
    }
}

/// The reason why an operation was not submitted, and the operation itself. Its [kind](NotTaken::kind) is
/// `Unsupported` if another executor can execute it.
///
/// ```
/// use std::sync::Arc;
/// use aio_backend::{NotSubmitted, Operation};
///
/// # fn main() -> std::io::Result<()> {
/// let file = Arc::new(std::fs::File::open("/proc/self/stat")?);
/// let refused = NotSubmitted::unsupported(Operation::sync_data(file), "epoll");
/// assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
/// let operation = refused.into_operation(); // for another executor
/// # drop(operation); Ok(()) }
/// ```
pub type NotSubmitted = NotTaken<Operation>;

impl NotSubmitted {
    /// Makes the error of a backend of this name that executes no operations.
    #[cold]
    #[must_use]
    pub fn unsupported(operation: Operation, backend: &'static str) -> Self {
        let why = format!("the backend {backend} executes no operations; a pool of threads can");
        Self::new(operation, io::Error::new(io::ErrorKind::Unsupported, why))
    }

    /// Gives the operation back.
    #[must_use]
    pub fn into_operation(self) -> Operation {
        self.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn file() -> Arc<std::fs::File> {
        Arc::new(std::fs::File::open("/proc/self/stat").unwrap())
    }

    #[test]
    fn s1_an_operation_is_for_any_thread_and_comes_back_whole() {
        fn is_send<T: Send>() {}
        is_send::<Operation>();
        is_send::<Completed>();
        let refused = NotSubmitted::unsupported(Operation::read(file(), 7, vec![1, 2, 3]), "ppoll");
        assert!(refused.to_string().contains("ppoll"), "{refused}");
        let (mut operation, error) = refused.into_parts();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(matches!(operation.take_buffers(), Buffers::One(buffer) if buffer == [1, 2, 3]));
        assert!(operation.buffers().is_some_and(Buffers::is_empty));
    }

    #[test]
    fn s1_flags_and_modes_are_those_of_the_system() {
        use rustix::fs::FallocateFlags;
        use rustix::io::ReadWriteFlags;

        assert_eq!(TransferFlags::DSYNC.bits(), ReadWriteFlags::DSYNC.bits());
        assert_eq!(TransferFlags::NOWAIT.bits(), ReadWriteFlags::NOWAIT.bits());
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for (how, flags) in [
            (Allocation::Reserve, FallocateFlags::empty()),
            (Allocation::ReserveKeepSize, FallocateFlags::KEEP_SIZE),
            (Allocation::PunchHole, hole),
            (Allocation::ZeroRange, FallocateFlags::ZERO_RANGE),
        ] {
            assert_eq!(how.mode(), flags.bits(), "{how:?}");
        }
        let read = Operation::read(file(), None, vec![0; 4]).with_flags(TransferFlags::NOWAIT);
        assert!(matches!(
            read.action,
            FileAction::Read {
                at: None,
                flags: TransferFlags::NOWAIT,
                ..
            }
        ));
    }

    #[test]
    fn s1_only_a_read_into_one_buffer_has_bytes() {
        let of = |operation, result| Completed { result, operation }.into_bytes();
        assert_eq!(of(Operation::read(file(), 0, vec![5; 3]), Ok(2)).unwrap(), [5, 5]);
        for other in [
            Operation::sync_all(file()),
            Operation::read(file(), 0, vec![vec![0; 3]]),
        ] {
            assert_eq!(of(other, Ok(0)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let failed = of(
            Operation::read(file(), 0, vec![5; 3]),
            Err(io::Error::from_raw_os_error(9)),
        );
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(9));
    }
}
