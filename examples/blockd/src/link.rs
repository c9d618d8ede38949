//! The end of a connection, as those see it who work for it: a way to cut it.

use std::fmt;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// A connection of one export.
#[derive(Debug)]
pub(crate) struct Link {
    export: Rc<str>,
    socket: UnixStream,
}

impl Link {
    pub(crate) fn new(export: Rc<str>, socket: UnixStream) -> Self {
        Self { export, socket }
    }

    /// The name of the export, for messages.
    pub(crate) fn export(&self) -> &str {
        &self.export
    }

    /// Ends the connection, with a line in the log. The session hears of it as of a client that has gone.
    pub(crate) fn cut(&self, why: &dyn fmt::Display) {
        tracing::warn!(export = %self.export, "the connection ends: {why}");
        if let Err(error) = self.socket.shutdown(Shutdown::Both) {
            tracing::debug!(export = %self.export, %error, "the connection had ended before");
        }
    }
}
