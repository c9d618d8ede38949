//! [`NbdStats`]: counters of the NBD clients of an export.

use std::cell::Cell;

use crate::stats::QueueStats;

/// A type of virtio-blk requests that counts as "other".
pub(super) const OTHER: u32 = u32::MAX;

/// The counters of all NBD clients of an export. They outlive the clients.
#[derive(Debug, Default)]
pub(crate) struct NbdStats {
    clients: Cell<u64>,
    /// Counters like those of a virtqueue.
    pub(super) requests: QueueStats,
}

impl NbdStats {
    /// Counts a client that has chosen the export.
    pub(super) fn has_client(&self) {
        self.clients.set(self.clients.get() + 1);
    }

    /// Returns the number of clients so far.
    pub(crate) fn clients(&self) -> u64 {
        self.clients.get()
    }

    /// Returns the counters of requests, if there was a client.
    pub(crate) fn requests(&self) -> Option<&QueueStats> {
        (self.clients() > 0).then_some(&self.requests)
    }

    /// Counts a request that the loop has executed: the type of the virtio-blk request with the same effect,
    /// and the bytes that it has moved or cleared.
    #[inline]
    pub(super) fn executed(&self, (kind, bytes): (u32, u64), failed: bool) {
        self.requests.completed_in_turn(kind, bytes, failed);
    }

    /// Counts a request that a thread has executed.
    pub(super) fn completed(&self, (kind, bytes): (u32, u64), failed: bool) {
        self.requests.completed(kind, bytes, failed);
    }

    /// Counts a request that was not executed because it is not valid.
    pub(super) fn refused(&self) {
        self.requests.completed(OTHER, 0, true);
    }
}
