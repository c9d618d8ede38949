//! The control socket: commands to a running daemon, and `blockd ctl`, which sends them.
//!
//! Only the user of the daemon can use the socket. Its protocol consists of lines: the client sends a JSON
//! object with a command, and the daemon sends one with the answer, in order. A client that breaks the rules
//! gets an error and is disconnected. No client can make the loop wait.

mod args;
mod client;
mod command;
mod connection;
mod lines;
mod stats;
mod table;
mod terminal;

use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;

use aio_context::Context;
use aio_sources::Listener;
use anyhow::Context as _;

pub use args::CtlArgs;
pub(crate) use command::PollChange;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use command::{Command, MOST_COMMAND};
pub(crate) use lines::Controlled;

use crate::peers::Peers;
use crate::socket::{self, Permissions};
use lines::Lines;

/// The control socket of a daemon. Dropping it ends all connections and removes the socket.
#[derive(Debug)]
pub(crate) struct Control {
    peers: Rc<Peers>,
    _listener: Listener,
}

impl Control {
    /// Listens at `path`.
    ///
    /// # Errors
    /// If the socket cannot be bound, or the loop cannot wait for clients; with the remedy.
    pub(crate) fn listen(cx: &Context, path: &Path, controlled: Controlled) -> anyhow::Result<Self> {
        let socket = socket::Listener::bind(path, Permissions::PRIVATE)?;
        let peers = Peers::new(Lines::new(controlled));
        let joined = Rc::downgrade(&peers);
        let listener = Listener::new(cx, socket, move |cx, client, _| {
            if let Some(peers) = joined.upgrade()
                && let Err(error) = peers.join(cx, client.into())
            {
                tracing::warn!(%error, "a client of the control socket cannot be served");
            }
        });
        let listener = listener
            .map_err(io::Error::from)
            .with_context(|| format!("cannot wait for clients of the control socket {}", path.display()))?;
        Ok(Self {
            peers,
            _listener: listener,
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.peers.close();
    }
}

/// Sends the command of the command line to a daemon, and prints the answer to `out`.
///
/// # Errors
/// If the daemon cannot be reached, or answers with an error.
pub fn ctl(args: &CtlArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    client::run(args, out)
}
