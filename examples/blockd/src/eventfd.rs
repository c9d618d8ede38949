//! Eventfds that clients share: kick, call and error.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Makes the eventfd of a client non-blocking: a read from an empty one or a write to a full one must not block the loop.
///
/// # Errors
/// If the descriptor is not an eventfd. If /proc does not show its kind, it is accepted.
pub(crate) fn accept(file: File) -> io::Result<File> {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if target.is_ok_and(|target| target.as_os_str() != "anon_inode:[eventfd]") {
        return Err(io::Error::other(
            "a descriptor for kick, call or error must be an eventfd",
        ));
    }
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
    Ok(file)
}

/// Adds one to an eventfd. An eventfd with a full counter stays as it is, because it is readable already.
pub(crate) fn signal(eventfd: &File) {
    while rustix::io::write(eventfd, &1u64.to_ne_bytes()) == Err(Errno::INTR) {}
}
