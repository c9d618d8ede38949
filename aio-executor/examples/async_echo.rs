//! A server that echoes what it receives, and a thousand clients on a thread of their own. Each connection is
//! a task that reads and writes in turn, without a callback or a state machine.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use aio_context::Context;
use aio_executor::{AsyncFd, ContextExt, RemoteExt, current, spawn};
use aio_sources::IoThread;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const CLIENTS: usize = 1000;
const MESSAGES: usize = 3;

type Socket = AsyncFd<TcpStream>;

async fn write_all(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = socket.write_with(|mut stream| stream.write(bytes)).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn serve(client: Socket) -> io::Result<()> {
    let mut buffer = [0; 256];
    loop {
        let read = client.read_with(|mut stream| stream.read(&mut buffer)).await?;
        if read == 0 {
            return Ok(()); // the client is gone
        }
        write_all(&client, &buffer[..read]).await?;
    }
}

/// Accepts clients until the task is cancelled.
async fn accept(listener: AsyncFd<TcpListener>) -> io::Result<()> {
    loop {
        let (client, _address) = listener.read_with(TcpListener::accept).await?;
        let client = AsyncFd::new(&current(), client)?;
        spawn(serve(client)).detach();
    }
}

async fn ask(address: SocketAddr, number: usize) -> io::Result<usize> {
    let socket = AsyncFd::new(&current(), TcpStream::connect(address)?)?;
    for message in 0..MESSAGES {
        let sent = format!("message {message} of client {number}");
        write_all(&socket, sent.as_bytes()).await?;
        let (mut got, mut buffer) = (Vec::new(), [0; 64]);
        while got.len() < sent.len() {
            let read = socket.read_with(|mut stream| stream.read(&mut buffer)).await?;
            got.extend_from_slice(&buffer[..read]);
        }
        assert_eq!(got, sent.as_bytes());
    }
    Ok(MESSAGES)
}

/// Runs all clients at the same time: each has its answers before the first one ends.
async fn ask_all(address: SocketAddr) -> io::Result<usize> {
    let clients: Vec<_> = (0..CLIENTS).map(|number| spawn(ask(address, number))).collect();
    let mut answers = 0;
    for client in clients {
        answers += client.await??;
    }
    Ok(answers)
}

fn main() -> io::Result<()> {
    // A thousand connections have two ends each.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let cx = Context::new()?;
    let server = cx.spawn(accept(AsyncFd::new(&cx, listener)?));
    let io = IoThread::spawn(|_cx| Ok(()))?;
    let clients = io.remote().spawn_with(move |_cx| ask_all(address));
    let answers = cx.block_on(clients)?;
    println!("{} answers for {CLIENTS} clients", answers??);
    drop(server);
    io.stop()
}
