//! [`Target`]: the object behind a descriptor.

use std::os::fd::RawFd;

pub(crate) type FileId = usize;

/// The object that an epoll set, an array or a request refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    File(FileId),
    /// The loop's own eventfd, which is a real one.
    Doorbell(RawFd),
}
