//! [`Accept`]: what a [`Listener`](crate::Listener) can listen on.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{self, UnixListener, UnixStream};

/// A socket that accepts clients.
pub trait Accept: AsFd + 'static {
    /// The socket of a client.
    type Client;
    /// The address of a client.
    type Address;

    /// Makes [`accept`](Self::accept) return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// The system's.
    fn set_nonblocking(&self) -> io::Result<()>;

    /// Accepts one client, whose socket is non-blocking.
    ///
    /// # Errors
    /// The system's: `WouldBlock` if there is no client.
    fn accept(&self) -> io::Result<(Self::Client, Self::Address)>;
}

impl Accept for TcpListener {
    type Client = TcpStream;
    type Address = SocketAddr;

    fn set_nonblocking(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (client, address) = self.accept()?;
        client.set_nonblocking(true)?;
        Ok((client, address))
    }
}

impl Accept for UnixListener {
    type Client = UnixStream;
    type Address = net::SocketAddr;

    fn set_nonblocking(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }

    fn accept(&self) -> io::Result<(UnixStream, net::SocketAddr)> {
        let (client, address) = self.accept()?;
        client.set_nonblocking(true)?;
        Ok((client, address))
    }
}

/// Whether the error is one of the client that was next, which is gone already.
pub(crate) fn is_the_clients(why: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(
        why.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable
    )
}
