//! An echo server in callbacks. The handler of a connection reads again only after it has sent back all data.
//!
//! `cargo run --example echo` serves a thousand clients of its own, all connected at a time; `--example echo -- 127.0.0.1:7777`
//! serves others, until Ctrl-C.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use aio_context::{Action, Context, Event, Interest};
use aio_sources::{Listener, Signal, Signals};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const CLIENTS: usize = 1000;
/// More than the buffers of a socket hold.
const BYTES: usize = 10_000_000;

fn main() -> io::Result<()> {
    // A thousand connections have two ends each.
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    let cx = Context::new()?;
    let _signals = Signals::new(&cx, &[Signal::INT, Signal::TERM], |cx, _| cx.stop())?;
    let argument = std::env::args().nth(1);
    let socket = TcpListener::bind(argument.as_deref().unwrap_or("127.0.0.1:0"))?;
    let (address, home) = (socket.local_addr()?, cx.remote());
    let _listener = Listener::new(&cx, socket, |cx, client, from| {
        if let Err(why) = serve(cx, client) {
            eprintln!("cannot serve {from}: {why}");
        }
    })?;
    let clients = argument.is_none().then(|| {
        thread::spawn(move || {
            let echoed = visit(address);
            home.stop();
            echoed
        })
    });
    cx.run()?;
    if let Some(clients) = clients {
        let echoed = clients.join().expect("the clients do not panic")?;
        println!("echoed {echoed} bytes for {CLIENTS} clients");
    }
    Ok(())
}

/// Sends all data back, until the client has ended.
fn serve(cx: &Context, client: TcpStream) -> io::Result<()> {
    let unsent = RefCell::new(Vec::new());
    let serve = move |stream: &TcpStream, _: &Context, _: Event| {
        echo(stream, &mut unsent.borrow_mut()).unwrap_or(Action::Remove)
    };
    cx.on(client).ready(serve).watch()?.detach(); // the action ends it
    Ok(())
}

/// Reads once, unless data are left to send back. Sends as much as it can without waiting, and returns the
/// interest to wait for.
fn echo(mut stream: &TcpStream, unsent: &mut Vec<u8>) -> io::Result<Action> {
    if unsent.is_empty() {
        unsent.resize(16_384, 0);
        let count = stream.read(unsent)?;
        unsent.truncate(count);
        if count == 0 {
            return Ok(Action::Remove);
        }
    }
    match stream.write(unsent) {
        Ok(count) => drop(unsent.drain(..count)),
        Err(why) if why.kind() == ErrorKind::WouldBlock => {}
        Err(why) => return Err(why),
    }
    Ok(Action::Interest(match unsent.is_empty() {
        true => Interest::READ,
        false => Interest::WRITE,
    }))
}

/// Connects all clients before the first one sends. The last one sends more than fits into the buffers.
fn visit(address: SocketAddr) -> io::Result<usize> {
    let clients: io::Result<Vec<_>> = (0..CLIENTS).map(|_| TcpStream::connect(address)).collect();
    let mut clients = clients?;
    for client in &mut clients {
        client.write_all(b"hello")?;
    }
    let mut echoed = [0; 5];
    for client in &mut clients {
        client.read_exact(&mut echoed)?;
        assert_eq!(&echoed, b"hello");
    }
    let (mut sender, mut much) = (clients[0].try_clone()?, vec![0; BYTES]);
    let sends = thread::spawn(move || sender.write_all(&vec![7; BYTES]));
    clients[0].read_exact(&mut much)?;
    assert!(much.iter().all(|byte| *byte == 7));
    sends.join().expect("it does not panic")?;
    Ok(CLIENTS * echoed.len() + BYTES)
}
