//! What the daemon tells about itself: plain data, as the control socket sends it.

use serde::{Deserialize, Serialize};

/// An export, as `list` shows it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct ExportState {
    pub(crate) name: String,
    /// The path of its socket.
    pub(crate) socket: String,
    /// The disk, as `--export` spells it: `path=FILE`, `ram` or `null`.
    pub(crate) disk: String,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) readonly: bool,
    /// The most queues of a client.
    pub(crate) queues: u16,
    /// Whether a client is connected.
    pub(crate) connected: bool,
    /// The queues that are served now.
    pub(crate) serving: u16,
    /// The requests that threads execute.
    pub(crate) in_flight: usize,
    /// Whether it completes its last requests and is then removed.
    pub(crate) is_leaving: bool,
}

/// An event loop, as `list` shows it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct LoopState {
    pub(crate) name: String,
    /// The system facility that waits for descriptors.
    pub(crate) backend: String,
    /// The polling policy and the values that it works with.
    pub(crate) polling: String,
    /// The longest busy polling, in nanoseconds.
    pub(crate) poll_max_ns: u64,
}

/// The answer to `list`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct List {
    pub(crate) exports: Vec<ExportState>,
    pub(crate) loops: Vec<LoopState>,
}
