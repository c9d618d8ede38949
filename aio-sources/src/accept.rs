//! [`Accept`]: the sockets on which a [`Listener`](crate::Listener) can listen.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{self, UnixListener, UnixStream};

use rustix::io::Errno;

/// A socket that accepts clients.
///
/// # Examples
/// ```
/// use std::cell::Cell;
/// use std::io;
/// use std::net::{SocketAddr, TcpListener, TcpStream};
/// use std::os::fd::{AsFd, BorrowedFd};
/// use std::rc::Rc;
/// use aio_context::{Context, Wait};
/// use aio_sources::{Accept, Listener};
///
/// /// A listener that numbers its clients.
/// struct Numbered(TcpListener, Cell<u64>);
///
/// # impl AsFd for Numbered { fn as_fd(&self) -> BorrowedFd<'_> { self.0.as_fd() } }
/// impl Accept for Numbered {
///     type Client = TcpStream;
///     type Address = (u64, SocketAddr);
///
///     fn set_nonblocking(&self) -> io::Result<()> {
///         Accept::set_nonblocking(&self.0)
///     }
///     fn accept(&self) -> io::Result<(TcpStream, (u64, SocketAddr))> {
///         let (client, address) = Accept::accept(&self.0)?;
///         let number = self.1.replace(self.1.get() + 1);
///         Ok((client, (number, address)))
///     }
/// }
///
/// # fn main() -> io::Result<()> {
/// let (cx, socket) = (Context::new()?, TcpListener::bind("127.0.0.1:0")?);
/// let _client = TcpStream::connect(socket.local_addr()?)?;
/// let last = Rc::new(Cell::new(0));
/// let number_of_last = last.clone();
/// let socket = Numbered(socket, Cell::new(1));
/// let _listener = Listener::new(&cx, socket, move |_cx, _client, (number, _)| number_of_last.set(number))?;
/// cx.poll(Wait::Block)?;
/// assert_eq!(last.get(), 1);
/// # Ok(()) }
/// ```
pub trait Accept: AsFd + 'static {
    /// The socket of a client.
    type Client;
    /// The address of a client.
    type Address;

    /// Makes [`accept`](Self::accept) return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// The error of the system.
    fn set_nonblocking(&self) -> io::Result<()>;

    /// Accepts one client, whose socket is non-blocking.
    ///
    /// # Errors
    /// The error of the system: `WouldBlock` if there is no client.
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

/// Returns `true` if the error belongs to the next client, which is gone already, or to its network: those
/// that accept(2) says to ignore.
pub(crate) fn is_the_clients(why: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(why),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::INTR
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NONET
                | Errno::NOPROTOOPT
                | Errno::PROTO
        )
    )
}
