//! [`VringError`]: the reason for which a queue has failed.

use std::io;

use crate::request::MalformedRequest;

/// The reason for which a queue has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum VringError {
    #[error(transparent)]
    Malformed(#[from] MalformedRequest),
    #[error("the available index is {pending} ahead in a queue of {size}")]
    Index { pending: u16, size: u16 },
    #[error(
        "the client's memory has lost pages: the client truncated its file, or the system has no huge pages left"
    )]
    MemoryLost,
    #[error("the kick descriptor: {0}")]
    Kick(io::Error),
    #[error(
        "cannot start a thread for its requests: {0}; raise the limit of processes (ulimit -u, or TasksMax of a service), \
             or use --engine sync"
    )]
    NoThread(io::Error),
    #[error("a thread has failed; this is an error of the daemon")]
    Panic,
}

impl VringError {
    /// Returns `true` if the error concerns this queue only, so that the others continue.
    pub(super) fn is_of_queue(&self) -> bool {
        match self {
            Self::Malformed(_) | Self::Index { .. } | Self::Kick(_) => true,
            Self::MemoryLost | Self::NoThread(_) | Self::Panic => false,
        }
    }
}
