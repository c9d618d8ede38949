//! [`Listener`]: accepts clients a few at a time, and continues after there was no descriptor left for one.

use std::rc::Rc;

use aio_context::{Context, GroupId, Interest};

use crate::acceptor::{Acceptor, Shared};
use crate::error::not_watched;
use crate::{Accept, AddError};

/// Calls back for each client of a socket. Dropping it closes the socket.
///
/// One iteration accepts at most 16 clients. If the system refuses to accept, because there is no descriptor
/// or memory left, the listener pauses for 100 ms instead of trying in vain; clients wait in the socket's
/// queue meanwhile. A `tracing` warning reports the first refusal since a client was accepted.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use aio_context::{Context, Wait};
/// use aio_sources::Listener;
///
/// # fn main() -> std::io::Result<()> {
/// let cx = Context::new()?;
/// let socket = TcpListener::bind("127.0.0.1:0")?;
/// let address = socket.local_addr()?;
/// let _listener = Listener::new(&cx, socket, |_cx, _client, from| println!("{from} is here"))?;
/// let client = TcpStream::connect(address)?;
/// cx.poll(Wait::Block)?;
/// # drop(client); Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it accepts no client"]
pub struct Listener {
    /// Shared with the handler. Taken when the listener is dropped.
    registration: Shared,
}

impl Listener {
    /// Calls `serve` with each client, which is non-blocking, and its address. Makes the socket non-blocking.
    ///
    /// # Errors
    /// As [`Context::watch`]; the socket is returned in the error.
    pub fn new<S: Accept>(
        cx: &Context,
        socket: S,
        serve: impl Fn(&Context, S::Client, S::Address) + 'static,
    ) -> Result<Self, AddError<S>> {
        Self::new_in(cx, GroupId::DEFAULT, socket, serve)
    }

    /// As [`new`](Self::new), as a member of `group`, which can be [paused](Context::pause). During a pause clients wait in the
    /// socket's queue.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_in<S: Accept>(
        cx: &Context,
        group: GroupId,
        socket: S,
        serve: impl Fn(&Context, S::Client, S::Address) + 'static,
    ) -> Result<Self, AddError<S>> {
        if let Err(why) = socket.set_nonblocking() {
            return Err(AddError::new(socket, why));
        }
        let registration = Shared::default();
        let acceptor = Acceptor::new(socket, group, serve, registration.clone());
        let watched = cx.watch_in(group, Rc::new(acceptor), Interest::READ);
        let watched = watched.map_err(|refused| not_watched(refused, Acceptor::into_socket))?;
        registration.replace(Some(watched));
        Ok(Self { registration })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let registration = self.registration.take();
        drop(registration); // outside the borrow: it drops the callback
    }
}
