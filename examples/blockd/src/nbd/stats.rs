//! [`NbdStats`]: counters of the NBD clients of an export.

use std::cell::Cell;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::request::{Kind, Request};
use crate::stats::QueueStats;

/// A type of virtio-blk requests that counts among the others.
const OTHER: u32 = u32::MAX;

/// The counters of all NBD clients of an export. They outlive the clients.
#[derive(Debug, Default)]
pub(crate) struct NbdStats {
    clients: Cell<u64>,
    /// As those of a virtqueue.
    pub(super) requests: QueueStats,
}

impl NbdStats {
    /// A client has chosen the export.
    pub(super) fn has_client(&self) {
        self.clients.set(self.clients.get() + 1);
    }

    /// The number of clients so far.
    pub(crate) fn clients(&self) -> u64 {
        self.clients.get()
    }

    /// The counters of requests, if there was a client.
    pub(crate) fn requests(&self) -> Option<&QueueStats> {
        (self.clients() > 0).then_some(&self.requests)
    }

    /// Counts a request that the loop has executed.
    #[inline]
    pub(super) fn executed(&self, request: &Request, failed: bool) {
        let (kind, bytes) = figures_of(request, failed);
        self.requests.completed_in_turn(kind, bytes, failed);
    }

    /// Counts a request that a thread has executed.
    pub(super) fn completed(&self, request: &Request, failed: bool) {
        let (kind, bytes) = figures_of(request, failed);
        self.requests.completed(kind, bytes, failed);
    }

    /// Counts a request that was not executed, because it is not valid.
    pub(super) fn refused(&self) {
        self.requests.completed(OTHER, 0, true);
    }
}

/// The type of virtio-blk requests that does the same, and the bytes that were moved or cleared.
#[inline]
fn figures_of(request: &Request, failed: bool) -> (u32, u64) {
    let kind = match request.kind {
        Kind::Read => VIRTIO_BLK_T_IN,
        Kind::Write => VIRTIO_BLK_T_OUT,
        Kind::Flush => VIRTIO_BLK_T_FLUSH,
        Kind::Trim => VIRTIO_BLK_T_DISCARD,
        Kind::WriteZeroes { .. } => VIRTIO_BLK_T_WRITE_ZEROES,
        Kind::BlockStatus { .. } | Kind::Cache => return (OTHER, 0),
    };
    let moves = request.kind != Kind::Flush && !failed;
    (kind, if moves { request.len.into() } else { 0 })
}
