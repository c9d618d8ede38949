//! A turn of a connection: its limits, and the reason for which it stops.

use super::wire::WrongMagic;
use crate::disk::{DiskError, STEP};

/// The most requests of a turn.
const REQUESTS_PER_TURN: u32 = 128;
/// The number of bytes after which a turn ends. The last step may exceed it.
const BYTES_PER_TURN: u64 = STEP;

/// The reason for which a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Magic(#[from] WrongMagic),
    /// The reply has begun, and its format cannot report an error.
    #[error("a read fails after its reply has begun: {0}")]
    Read(DiskError),
    #[error(
        "cannot start a thread for its requests: {0}; raise the limit of processes (ulimit -u, or TasksMax of a service), \
         or use --engine sync"
    )]
    NoThread(std::io::Error),
    #[error("a thread has failed; this is an error of the daemon")]
    Panic,
}

/// The reason for which no more requests are processed for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// More bytes must arrive.
    Input,
    /// Replies must be sent.
    Output,
    /// The turn is over.
    Turn,
    /// Threads must end requests.
    Jobs,
    /// Writes of other clients must be complete.
    Writes,
    /// The client disconnects.
    Disconnect,
    /// Another loop serves the client from now on.
    Leave,
}

/// The remaining limits of a turn.
#[derive(Debug)]
pub(super) struct Turn {
    requests: u32,
    bytes: u64,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self {
            requests: REQUESTS_PER_TURN,
            bytes: BYTES_PER_TURN,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }

    pub(super) fn begin_request(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }

    /// Records a step that has moved `bytes` bytes, or has taken as long as that.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
