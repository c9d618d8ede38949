//! Executes an [`Operation`] on the calling thread, with the results that a ring has.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;

use aio_context::{Allocation, Buffers, Completed, FileAction, Operation};
use rustix::fs::{FallocateFlags, fallocate, fdatasync, fsync};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2, retry_on_intr};

/// The current position of a file.
const CURRENT: u64 = u64::MAX;

/// Returns whether [`execute`] can execute an operation.
pub(crate) fn is_known(operation: &Operation) -> bool {
    match &operation.action {
        FileAction::Read { into: buffers, .. } | FileAction::Write { from: buffers, .. } => {
            !matches!(buffers, Buffers::Foreign(_))
        }
        FileAction::Sync { .. } | FileAction::Allocate { .. } | FileAction::Size => true,
        _ => false,
    }
}

/// Executes an operation, and blocks until it has ended.
pub(crate) fn execute(mut operation: Operation) -> Completed {
    let result = attempt(&mut operation);
    Completed { result, operation }
}

fn attempt(operation: &mut Operation) -> io::Result<usize> {
    let file = operation.file.as_fd();
    match &mut operation.action {
        FileAction::Read { at, into, flags } => {
            let flags = ReadWriteFlags::from_bits_retain(flags.bits());
            let mut slices = slices_mut(into)?;
            at_position(*at, |at| preadv2(file, &mut slices, at, flags))
        }
        FileAction::Write { at, from, flags } => {
            let flags = ReadWriteFlags::from_bits_retain(flags.bits());
            let slices = slices(from)?;
            at_position(*at, |at| pwritev2(file, &slices, at, flags))
        }
        FileAction::Sync { data_only: true } => Ok(retry_on_intr(|| fdatasync(file)).map(|()| 0)?),
        FileAction::Sync { data_only: false } => Ok(retry_on_intr(|| fsync(file)).map(|()| 0)?),
        FileAction::Allocate { how, at, len } => {
            let (mode, at, len) = (mode(*how), *at, *len);
            Ok(retry_on_intr(|| fallocate(file, mode, at, len)).map(|()| 0)?)
        }
        FileAction::Size => {
            usize::try_from(rustix::fs::fstat(file)?.st_size).map_err(|_| Errno::OVERFLOW.into())
        }
        _ => Err(unknown()),
    }
}

/// Calls `transfer` with the position in the form of the system call. A file without positions gets the
/// current one, as on a ring.
fn at_position(at: Option<u64>, mut transfer: impl FnMut(u64) -> Result<usize, Errno>) -> io::Result<usize> {
    // `u64::MAX`, which is no position of a file, must not mean the current position.
    let position = at.map_or(CURRENT, |at| at.min(CURRENT - 1));
    match retry_on_intr(|| transfer(position)) {
        Err(Errno::SPIPE) => Ok(retry_on_intr(|| transfer(CURRENT))?),
        result => Ok(result?),
    }
}

fn mode(how: Allocation) -> FallocateFlags {
    FallocateFlags::from_bits_retain(how.mode())
}

fn slices_mut(buffers: &mut Buffers) -> io::Result<Vec<IoSliceMut<'_>>> {
    match buffers {
        Buffers::One(buffer) => Ok(vec![IoSliceMut::new(buffer)]),
        Buffers::Many(all) => Ok(all.iter_mut().map(|one| IoSliceMut::new(one)).collect()),
        Buffers::Foreign(_) => Err(unknown()),
    }
}

fn slices(buffers: &Buffers) -> io::Result<Vec<IoSlice<'_>>> {
    match buffers {
        Buffers::One(buffer) => Ok(vec![IoSlice::new(buffer)]),
        Buffers::Many(all) => Ok(all.iter().map(|one| IoSlice::new(one)).collect()),
        Buffers::Foreign(_) => Err(unknown()),
    }
}

/// Returns the error of an operation that is not [known](is_known).
pub(crate) fn unknown() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "threads execute operations on vectors only",
    )
}
