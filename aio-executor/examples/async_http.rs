//! An HTTP/1.1 server: hyper, which has no executor of its own, on a context. An I/O thread's context serves
//! a request; the client is this thread, with plain sockets. hyper has its own traits for sockets, which
//! [`Io`] implements by those of `futures-io`.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::task::{Context as Polling, Poll, ready};

use aio_executor::{AsyncFd, RemoteExt, current, spawn};
use aio_sources::IoThread;
use futures_io::{AsyncRead, AsyncWrite};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

/// A socket with hyper's traits.
struct Io(AsyncFd<TcpStream>);

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        polling: &mut Polling<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = [0; 4096];
        let most = buffer.len().min(into.remaining());
        let read = ready!(Pin::new(&mut self.0).poll_read(polling, &mut buffer[..most]))?;
        into.put_slice(&buffer[..read]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        polling: &mut Polling<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(polling, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(polling)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, polling: &mut Polling<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(polling)
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let text = format!("{} {}\n", request.method(), request.uri().path());
    Ok(Response::new(text))
}

/// Serves clients until the task is cancelled.
async fn serve(listener: TcpListener) -> io::Result<()> {
    let listener = AsyncFd::new(&current(), listener)?;
    loop {
        let (client, _address) = listener.read_with(TcpListener::accept).await?;
        let client = Io(AsyncFd::new(&current(), client)?);
        let connection = http1::Builder::new().serve_connection(client, service_fn(answer));
        let served = async move {
            if let Err(why) = connection.await {
                println!("a connection failed: {why}");
            }
        };
        spawn(served).detach();
    }
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Ok(format!("{}: {body}", head.lines().next().unwrap_or_default()))
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let io = IoThread::spawn(|_cx| Ok(()))?;
    let server = io.remote().spawn_with(|_cx| serve(listener));
    for path in ["/", "/index.html"] {
        print!("{}", get(address, path)?);
    }
    drop(server);
    io.stop()
}
