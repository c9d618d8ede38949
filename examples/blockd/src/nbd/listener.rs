//! Listening sockets: Unix and TCP.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use aio_context::{Context, GroupId};
use anyhow::Context as _;
use rustix::net::sockopt;

use super::address::Address;
use crate::opened::permissions;
use crate::process::PassedSockets;
use crate::socket;

/// The bytes of replies that a client's socket should buffer. The system may allow fewer.
const SEND_BUFFER: usize = 1024 * 1024;
/// The time without data after which TCP sends probes, the time between two probes, and their number. So the
/// loss of a TCP client's machine is detected within two minutes.
const IDLE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(10);
const QUESTIONS: u32 = 6;

/// A socket that accepts clients. Dropping it closes the socket, and removes the path of a Unix socket.
#[derive(Debug)]
pub(super) struct Bound {
    _clients: aio_sources::Listener,
    /// Dropped after the listener.
    _path: Option<socket::Listener>,
}

impl Bound {
    /// Passes the socket of each client to `serve`.
    ///
    /// # Errors
    /// If the address cannot be used; with the remedy.
    pub(super) fn bind(
        (cx, group): (&Context, GroupId),
        address: &Address,
        sockets: &PassedSockets,
        serve: impl Fn(&Context, OwnedFd) + 'static,
    ) -> anyhow::Result<Self> {
        match address {
            Address::Unix {
                path,
                mode,
                group: owner,
            } => {
                let listener = socket::Listener::bind(path, permissions(*mode, owner.as_deref())?)?;
                Self::bind_unix(cx, group, listener, address, serve)
            }
            Address::Passed(name) => {
                let listener = socket::Listener::passed(sockets.get(name)?);
                Self::bind_unix(cx, group, listener, address, serve)
            }
            Address::Tcp(address) => Self::bind_tcp(cx, group, *address, serve),
        }
    }

    fn bind_unix(
        cx: &Context,
        group: GroupId,
        listener: socket::Listener,
        address: &Address,
        serve: impl Fn(&Context, OwnedFd) + 'static,
    ) -> anyhow::Result<Self> {
        let what = || format!("cannot wait for clients at {address}");
        let socket = listener.socket().try_clone().with_context(what)?;
        let accepted = move |cx: &Context, client: UnixStream, _| {
            let client = OwnedFd::from(client);
            enlarge(&client);
            serve(cx, client);
        };
        let clients = aio_sources::Listener::new_in(cx, group, socket, accepted)
            .map_err(io::Error::from)
            .with_context(what)?;
        Ok(Self {
            _clients: clients,
            _path: Some(listener),
        })
    }

    fn bind_tcp(
        cx: &Context,
        group: GroupId,
        address: SocketAddr,
        serve: impl Fn(&Context, OwnedFd) + 'static,
    ) -> anyhow::Result<Self> {
        let socket = TcpListener::bind(address).map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another process listens there already; end it, or name another port"
                }
                io::ErrorKind::AddrNotAvailable => "this machine has no such address; name another one",
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need a permission; name a higher one, such as 10809"
                }
                _ => "name another address",
            };
            anyhow::Error::new(error).context(format!("cannot listen at {address}: {remedy}"))
        })?;
        let accepted = move |cx: &Context, client: TcpStream, _| {
            // Replies are sent at once. The connection works without this option, too.
            client.set_nodelay(true).unwrap_or_default();
            let client = OwnedFd::from(client);
            // Otherwise the connection of a lost machine would keep its place.
            keep_alive(&client).unwrap_or_default();
            serve(cx, client);
        };
        let clients = aio_sources::Listener::new_in(cx, group, socket, accepted)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot wait for clients at {address}"))?;
        Ok(Self {
            _clients: clients,
            _path: None,
        })
    }
}

/// Makes the system probe the client's machine, and end the connection if the machine does not answer. The
/// kernel of that machine answers, so a stopped client stays connected.
fn keep_alive(client: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_keepidle(client, IDLE)?;
    sockopt::set_tcp_keepintvl(client, ASK_AGAIN)?;
    sockopt::set_tcp_keepcnt(client, QUESTIONS)?;
    Ok(sockopt::set_socket_keepalive(client, true)?)
}

/// Enlarges the send buffer to hold the replies of a turn, so that one system call sends them. Smaller
/// buffers work too.
fn enlarge(client: &OwnedFd) {
    sockopt::set_socket_send_buffer_size(client, SEND_BUFFER).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use aio_context::Wait;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Without probes, 64 clients whose machines have lost their power would occupy all places for hours.
    #[test]
    fn c21_the_machine_of_a_tcp_client_is_asked_whether_it_is_there() {
        let cx = Context::new().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let clients = Rc::new(RefCell::new(Vec::new()));
        let accepted = clients.clone();
        let address = Address::Tcp(free);
        let serve = move |_: &Context, client| accepted.borrow_mut().push(client);
        let on = (&cx, cx.new_group());
        let _bound = Bound::bind(on, &address, &PassedSockets::default(), serve).unwrap();
        let _client = TcpStream::connect(free).unwrap();
        while clients.borrow().is_empty() {
            cx.poll(Wait::Block).unwrap();
        }
        let client = &clients.borrow()[0];
        assert!(sockopt::socket_keepalive(client).unwrap());
        let most = sockopt::tcp_keepidle(client).unwrap()
            + sockopt::tcp_keepintvl(client).unwrap() * sockopt::tcp_keepcnt(client).unwrap();
        assert!(most <= Duration::from_secs(120), "{most:?}");
    }
}
