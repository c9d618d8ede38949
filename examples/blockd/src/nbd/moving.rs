//! [`Moved`]: a connection on its way from the loop of its handshake to the loop of its export.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::input::Input;
use super::outbox::Outbox;
use super::places::Place;
use crate::request::Device;

/// A connection whose client has chosen an export of another loop.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(super) socket: OwnedFd,
    /// Requests that the client has sent after its handshake.
    pub(super) input: Input,
    /// The end of the handshake, which is not sent yet.
    pub(super) out: Outbox,
    /// The device of the export.
    pub(super) device: Arc<Device>,
    /// Whether replies consist of chunks.
    pub(super) structured: bool,
    /// Whether the client may query the allocation of ranges.
    pub(super) status: bool,
    pub(super) place: Arc<Place>,
}

/// Moves a connection to another loop.
pub(crate) type MoveClient = Arc<dyn Fn(Moved) + Send + Sync>;
