//! A client's connection, shared by its queues and its session, which log about it and abort it.

use std::fmt;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use crate::limit::{Kind, LineLimit};

/// A connection of one export, for one of the loops that serve its queues.
#[derive(Debug)]
pub(crate) struct Connection {
    limit: Rc<LineLimit>,
    socket: Arc<UnixStream>,
}

impl Connection {
    pub(crate) fn new(limit: Rc<LineLimit>, socket: Arc<UnixStream>) -> Self {
        Self { limit, socket }
    }

    /// Returns the socket, for the other loops.
    pub(crate) fn socket(&self) -> Arc<UnixStream> {
        self.socket.clone()
    }

    /// Returns the name of the export, for messages.
    pub(crate) fn export(&self) -> &str {
        self.limit.export()
    }

    /// Logs a line within the limit of its kind.
    pub(crate) fn log(&self, kind: Kind, line: fmt::Arguments<'_>) {
        self.limit.log(kind, line);
    }

    /// Ends the connection and logs the reason. The session then handles the end as if the client had
    /// disconnected.
    pub(crate) fn abort(&self, why: &dyn fmt::Display) {
        self.log(Kind::Ended, format_args!("the connection ends: {why}"));
        // The client may have closed the socket already.
        self.socket.shutdown(Shutdown::Both).unwrap_or_default();
    }
}
