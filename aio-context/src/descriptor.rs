//! Checks of a descriptor that is being registered, by system calls.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aio_backend::Interest;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::net::sockopt::socket_acceptconn;

/// The most descriptors of a thread that a warning is given for.
const MOST: usize = 1024;

thread_local! {
    /// The descriptors that a warning was given for, by number and file.
    static WARNED: RefCell<BTreeSet<(RawFd, u64)>> = const { RefCell::new(BTreeSet::new()) };
}

/// Checks that a number is open.
pub(crate) fn find(fd: impl AsFd) -> io::Result<()> {
    rustix::io::fcntl_getfd(fd)?;
    Ok(())
}

/// Warns of a blocking descriptor whose handler could stop the whole loop; once for each descriptor. For
/// debug builds.
///
/// One read of a ready blocking pipe does not block. So the warning is only for descriptors whose handlers
/// usually do more: for a listener, from which they accept until no client is left, and for one that is
/// watched for edges, which has to be read until it is empty.
pub(crate) fn warn_if_blocking(fd: BorrowedFd<'_>, interest: Interest) {
    if interest == Interest::NONE || !fcntl_getfl(fd).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK)) {
        return;
    }
    let Ok(file) = fstat(fd) else { return };
    let kind = FileType::from_raw_mode(file.st_mode);
    let listens = kind == FileType::Socket && socket_acceptconn(fd).unwrap_or(false);
    // Files and directories are always ready, and have no edges. An eventfd has no type.
    let knows_edges = !matches!(kind, FileType::RegularFile | FileType::Directory);
    let is_edge = interest.contains(Interest::EDGE) && knows_edges;
    if !listens && !is_edge {
        return;
    }
    let is_new =
        WARNED.with_borrow_mut(|warned| warned.len() < MOST && warned.insert((fd.as_raw_fd(), file.st_ino)));
    if is_new {
        tracing::warn!(
            number = fd.as_raw_fd(),
            listens,
            "a blocking descriptor is watched: a handler that goes on until `WouldBlock` stops the whole loop; call \
             `set_nonblocking(true)` first"
        );
    }
}
