//! The end of a connection, as those see it who work for it: a way to cut it, and to log what happened to it.

use std::fmt;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use crate::limit::{Kind, LineLimit};

/// A connection of one export.
#[derive(Debug)]
pub(crate) struct Link {
    limit: Rc<LineLimit>,
    socket: UnixStream,
}

impl Link {
    pub(crate) fn new(limit: Rc<LineLimit>, socket: UnixStream) -> Self {
        Self { limit, socket }
    }

    /// The name of the export, for messages.
    pub(crate) fn export(&self) -> &str {
        self.limit.export()
    }

    /// Logs a line, as long as there are not too many of its kind.
    pub(crate) fn log(&self, kind: Kind, line: fmt::Arguments<'_>) {
        self.limit.log(kind, line);
    }

    /// Ends the connection, with a line in the log. The session hears of it as of a client that has gone.
    pub(crate) fn cut(&self, why: &dyn fmt::Display) {
        self.log(Kind::Ended, format_args!("the connection ends: {why}"));
        // It may have ended before.
        self.socket.shutdown(Shutdown::Both).unwrap_or_default();
    }
}
